"""`uniemo data`: a made set passes its own check, and faults are listed file by file."""

import shutil

import pytest
from typer.testing import CliRunner

from tests.data import layouts
from uniemo_ray.cli.app import app

runner = CliRunner()


@pytest.fixture
def sketch(tmp_path):
    pytest.importorskip("uniemo_ray.data.emosketch.write")
    folder = tmp_path / "sketch"
    sizes = ["--train", "48", "--val", "8", "--test", "8", "--size", "32"]
    result = runner.invoke(app, ["data", "make-sketch", "--out", str(folder), *sizes], catch_exceptions=False)
    assert result.exit_code == 0
    return folder


def check(folder):
    return runner.invoke(app, ["data", "check", str(folder), "--workers", "1"], catch_exceptions=False)


def test_a_made_set_is_usable(sketch):
    result = check(sketch)
    assert result.exit_code == 0, result.output
    assert "train: 48 of 48 images usable" in result.output


@pytest.mark.parametrize(
    ("labels", "folders"),
    [
        ("ekman", ["anger", "disgust", "fear", "joy", "sadness", "surprise"]),
        ("Calm=contentment+awe, tense=anger", ["calm", "tense"]),
    ],
)
def test_a_set_in_other_classes(tmp_path, labels, folders):
    sizes = ["--train", "48", "--val", "8", "--test", "8", "--size", "32"]
    arguments = ["data", "make-sketch", "--out", str(tmp_path / "set"), *sizes, "--labels", labels]
    assert runner.invoke(app, arguments, catch_exceptions=False).exit_code == 0
    assert sorted(path.name for path in (tmp_path / "set" / "image").iterdir()) == folders


@pytest.mark.parametrize("labels", ["moods", "calm=joy,tense=fear", "calm=awe", "calm=awe,tense=awe"])
def test_wrong_classes_of_a_set_are_refused(tmp_path, labels):
    arguments = ["data", "make-sketch", "--out", str(tmp_path / "set"), "--labels", labels]
    assert runner.invoke(app, arguments).exit_code != 0
    assert not (tmp_path / "set").exists()


def test_a_corrupt_image_is_named_and_counted(sketch):
    victim = sorted(sketch.rglob("*.png"))[0]
    victim.write_bytes(b"no picture")
    result = check(sketch)
    assert result.exit_code == 1
    assert victim.name in result.output
    assert "left out: 1 x image_corrupt" in result.output


def test_a_missing_folder_is_code_2(tmp_path):
    result = check(tmp_path / "nothing")
    assert result.exit_code == 2
    assert "no such folder" in result.stderr


def test_other_kinds_are_checked_and_duplicates_are_listed(tmp_path):
    folders = layouts.class_folders(tmp_path, ["anger", "disgust", "fear", "joy", "sadness", "surprise"], 4)
    shutil.copy(folders / "joy/1.jpg", folders / "joy/2.jpg")
    arguments = ["data", "check", str(folders), "--workers", "1", "--kind", "folders"]
    result = runner.invoke(app, [*arguments, "--set", "labels=ekman"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "same image: joy/" in result.output
    assert "note: the set has no splits: 12 train, 6 val, 6 test" in result.output
    assert runner.invoke(app, arguments).exit_code == 2


def test_a_wrong_kind_is_one_line(tmp_path):
    result = runner.invoke(app, ["data", "check", str(tmp_path), "--kind", "imagenet"])
    assert result.exit_code != 0
    assert "data.kind" in str(result.exception)
    assert "'twitter1'" in str(result.exception)
