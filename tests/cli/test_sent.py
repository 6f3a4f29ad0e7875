"""What a job gets to see: its entrypoint and its config. Ignored files are those that Ray does not send."""

import logging
from pathlib import Path

import pytest
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import _dir_travel, _get_excludes
from typer.testing import CliRunner

from uniemo_ray.cli.app import app
from uniemo_ray.cli.sent import check_config, find_entrypoint, find_folder, job_names

JOBS = [
    *("baselines", "complete_model", "experiments", "feedback_loop"),
    *("generation_baselines", "ingest", "precompute", "understanding"),
]


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_job_is_found_by_name(tmp_path):
    assert set(JOBS) <= set(job_names())
    assert not {"__init__", "command_line"} & set(job_names())
    for name in JOBS:
        assert find_entrypoint(name, tmp_path) == ["python", "-m", f"uniemo_ray.jobs.{name}"]


def test_a_script_is_found_from_here_and_from_the_working_folder(tmp_path, monkeypatch):
    write(tmp_path / "jobs" / "mine.py")
    monkeypatch.chdir(tmp_path / "jobs")
    for job in ("mine.py", "jobs/mine.py", str(tmp_path / "jobs" / "mine.py")):
        assert find_entrypoint(job, tmp_path) == ["python", "jobs/mine.py"]


@pytest.mark.parametrize("job", ["feedback-loop", "no.py", "command_line", "jobs"])
def test_an_unknown_job_lists_the_known_ones_and_says_that_a_path_works(tmp_path, job):
    (tmp_path / "jobs").mkdir()
    with pytest.raises(ValueError, match=f"there is no job '{job}'") as raised:
        find_entrypoint(job, tmp_path)
    assert ", ".join(JOBS) in str(raised.value)
    assert f"or the path of a script inside {tmp_path}" in str(raised.value)


def test_the_home_folder_is_sent_only_when_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="would be sent to the cluster as a whole"):
        find_folder(None)
    assert find_folder(Path()) == tmp_path
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert find_folder(None) == tmp_path / "work"
    with pytest.raises(ValueError, match="is no folder"):
        find_folder(Path("gone"))


def test_a_user_without_a_home_folder_may_send_any(tmp_path, monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _: {}["no such user"])
    monkeypatch.chdir(tmp_path)
    assert find_folder(None) == tmp_path


@pytest.mark.parametrize("arguments", [["--config", "demo"], ["--config=sub/my.yaml"], ["--set", "a=1"], []])
def test_a_config_that_the_job_finds(tmp_path, arguments):
    write(tmp_path / "sub" / "my.yaml")
    check_config(arguments, tmp_path, is_ours=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gone.yaml", "there is no config file gone.yaml in the working folder"),
        ("../outside.yaml", "there is no config file ../outside.yaml in the working folder"),
        ("configs/demo", "there is no config file configs/demo"),
        ("dmeo", "there is no preset 'dmeo'"),
        ("hidden.yaml", "ignored files are not sent"),
    ],
)
def test_a_config_that_the_job_would_not_find(tmp_path, text, words):
    folder = tmp_path / "work"
    write(tmp_path / "outside.yaml")
    write(folder / "hidden.yaml")
    write(folder / ".gitignore", "/hidden.yaml\n")
    with pytest.raises(ValueError, match=words):
        check_config(["--config", text], folder, is_ours=True)


def test_the_config_of_another_script_is_its_own_affair_but_for_yaml_files(tmp_path):
    check_config(["--config", "large"], tmp_path, is_ours=False)
    check_config(["--config", "/on/the/cluster.yaml"], tmp_path, is_ours=True)
    check_config(["--config"], tmp_path, is_ours=True)
    with pytest.raises(ValueError, match="there is no config file"):
        check_config(["--config", "gone.yaml"], tmp_path, is_ours=False)


@pytest.mark.parametrize("environment", [{}, {"RAY_RUNTIME_ENV_IGNORE_GITIGNORE": "1"}])
def test_hidden_is_what_ray_does_not_send(tmp_path, monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    write(tmp_path / ".gitignore", "/data/\n*.local.yaml\n!keep.local.yaml\n")
    write(tmp_path / ".rayignore", "docs\n")
    write(tmp_path / "sub" / ".gitignore", "secret*\n")
    names = ["a.yaml", "b.local.yaml", "keep.local.yaml", "data/a.yaml", "docs/a.yaml", "sub/data/a.yaml"]
    names += ["sub/secret.yaml", "sub/open.yaml", "secret.yaml", "venv/a.yaml", "sub/.git/a.yaml"]
    paths = [write(tmp_path / name) for name in names]
    sent: list[Path] = []
    excludes = [_get_excludes(tmp_path, get_runtime_env_default_excludes())]
    _dir_travel(
        tmp_path, excludes, sent.append, include_gitignore=not environment, logger=logging.getLogger("quiet")
    )
    for name, path in zip(names, paths, strict=True):
        if path in sent:
            check_config(["--config", name], tmp_path, is_ours=True)
        else:
            with pytest.raises(ValueError, match="ignored files are not sent"):
                check_config(["--config", name], tmp_path, is_ours=True)
    assert 0 < len(set(paths) & set(sent)) < len(paths)


def test_a_script_that_is_ignored_is_named(tmp_path):
    write(tmp_path / "job.py")
    rules = write(tmp_path / ".rayignore", "*.py\n")
    result = CliRunner().invoke(app, ["submit", "--working-dir", str(tmp_path), "job.py"])
    assert f"the script job.py is hidden from the job by {rules}" in str(result.exception)
