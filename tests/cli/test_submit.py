"""Submission ids, the script's path and exit codes; the real submission is tested with the local head."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from uniemo_ray.cli.app import app
from uniemo_ray.cli.submit import ending, exit_code, next_submission_id

runner = CliRunner()


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ([], "loop-1"),
        (["loop-1", "loop-2"], "loop-3"),
        (["loop-9", "loop-10", "loop-2"], "loop-11"),
        (["other-7", "loop-x", "my-loop-3", "loop"], "loop-1"),
    ],
)
def test_attempts_are_counted(taken, expected):
    assert next_submission_id("loop", taken) == expected


def test_a_name_is_no_pattern():
    assert next_submission_id("a.b", ["aXb-5"]) == "a.b-1"


@pytest.mark.parametrize(
    ("job", "expected", "line"),
    [
        ({"status": "SUCCEEDED", "driver_exit_code": 0}, 0, "job loop-1 succeeded"),
        ({"status": "FAILED", "driver_exit_code": 3}, 3, "job loop-1 failed with exit code 3"),
        (
            {"status": "FAILED", "driver_exit_code": None, "message": "pip failed:\nno such package"},
            1,
            "job loop-1 failed: pip failed:\nno such package",
        ),
        ({"status": "FAILED", "driver_exit_code": -9}, 1, "job loop-1 failed with exit code -9"),
        ({"status": "STOPPED", "driver_exit_code": None}, 130, "job loop-1 stopped"),
        ({"status": "RUNNING"}, 1, "job loop-1 running"),
    ],
)
def test_exit_code_and_last_line_are_the_jobs(job, expected, line):
    job = {"submission_id": "loop-1", **job}
    assert exit_code(job) == expected
    assert ending(job) == line


def test_a_missing_script_is_found_before_any_cluster_is_asked(tmp_path):
    result = runner.invoke(app, ["submit", "--working-dir", str(tmp_path), "no.py"])
    assert isinstance(result.exception, ValueError)
    assert str(result.exception).startswith("there is no job 'no.py': expected one of baselines, ")


def test_a_missing_config_is_found_before_any_cluster_is_asked(tmp_path):
    result = runner.invoke(
        app, ["submit", "--working-dir", str(tmp_path), "feedback_loop", "--", "--config", "my.yaml"]
    )
    assert str(result.exception).startswith("there is no config file my.yaml in the working folder")


def test_a_script_outside_the_working_folder(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "job.py").write_text("")
    result = runner.invoke(
        app, ["submit", "--working-dir", str(tmp_path / "inside"), str(tmp_path / "job.py")]
    )
    assert "lies outside the working folder" in str(result.exception)


def test_no_head_is_one_line(tmp_path: Path):
    (tmp_path / "job.py").write_text("")
    result = runner.invoke(
        app,
        [
            "submit",
            "--working-dir",
            str(tmp_path),
            "--address",
            "http://127.0.0.1:1",
            "job.py",
            "--",
            "--x",
            "1",
        ],
    )
    assert str(result.exception).startswith("no Ray head answers at http://127.0.0.1:1")
