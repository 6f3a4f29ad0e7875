"""Arguments of `understand`, `generate` and `compact`."""

import json
import shutil
import weakref

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from uniemo_ray.cli import model
from uniemo_ray.cli.app import app
from uniemo_ray.cli.model import parse_emotion
from uniemo_ray.data.images import FORMATS
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.inference.checksums import verify
from uniemo_ray.inference.provenance import read_provenance
from uniemo_ray.shipped import SHIPPED_FOLDER

runner = CliRunner()


def test_one_emotion():
    assert parse_emotion("awe", EMOTIONS) == "awe"


def test_weights():
    assert parse_emotion("amusement=0.6, fear=0.4", EMOTIONS) == {"amusement": 0.6, "fear": 0.4}


@pytest.mark.parametrize("text", ["joy", "", "awe,fear", "joy=1", "awe=1,joy=0.5"])
def test_unknown_emotions_are_named(text):
    with pytest.raises(ValueError, match="unknown emotion"):
        parse_emotion(text, EMOTIONS)


@pytest.mark.parametrize("number", ["x", "", "0", "-1", "nan", "inf"])
def test_weights_are_positive_numbers(number):
    with pytest.raises(ValueError, match="the weight of awe must be a positive number"):
        parse_emotion(f"awe={number}", EMOTIONS)


@pytest.mark.parametrize("text", ["awe=1,awe=2", "awe=1,fear"])
def test_malformed_weights(text):
    with pytest.raises(ValueError, match=r"expected weights like amusement=0\.6,fear=0\.4"):
        parse_emotion(text, EMOTIONS)


def test_the_prompt_has_a_place_for_the_emotion():
    result = runner.invoke(app, ["generate", "awe", "--model", "nowhere", "--prompt", "room"])
    assert "the prompt needs {} where the emotion goes" in str(result.exception)


def test_an_image_that_is_none_is_named(tmp_path):
    path = tmp_path / "text.png"
    path.write_text("no picture")
    result = runner.invoke(app, ["understand", str(path), "--model", "nowhere"])
    assert isinstance(result.exception, ValueError)
    assert str(result.exception).startswith(f"{path}: ")


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(path)
    return path


def test_understand_with_a_real_model_folder(model_folder, photo):
    result = runner.invoke(
        app, ["understand", str(photo), "--model", str(model_folder), "--json"], catch_exceptions=False
    )
    seen = json.loads(result.stdout)
    assert seen["image"] == str(photo)
    assert set(seen["emotions"]) == set(EMOTIONS)
    assert sum(seen["emotions"].values()) == pytest.approx(1, abs=1e-4)
    assert seen["top"] == max(seen["emotions"], key=seen["emotions"].get)
    text = runner.invoke(
        app, ["understand", str(photo)], env={"UNIEMO_MODEL": str(model_folder)}, catch_exceptions=False
    )
    assert f"photo.png: {seen['top']} ({seen['valence']})" in text.output


@pytest.mark.parametrize("count", [1, 40])
def test_an_image_that_cannot_be_read_costs_no_other(model_folder, photo, tmp_path, count):
    (tmp_path / "text.png").write_text("no picture")
    good = []
    for n in range(count):
        good.append(str(tmp_path / f"{n}.png"))
        shutil.copy(photo, good[-1])
    given = [str(tmp_path / "text.png"), *good, str(tmp_path / "gone.png"), str(tmp_path)]
    result = runner.invoke(app, ["understand", *given, "--model", str(model_folder), "--json"])
    assert result.exit_code == 1
    assert [json.loads(line)["image"] for line in result.stdout.splitlines()] == good
    lines = result.stderr.splitlines()
    assert [line.partition("png: ")[2] for line in lines[:2]] == [
        "corrupt: no picture in one of the formats " + ", ".join(FORMATS),
        "No such file or directory",
    ]
    assert lines[2] == f"error: {tmp_path}: Is a directory"


def test_one_image_at_a_time_is_in_memory_as_a_whole(model_folder, photo, monkeypatch):
    """Decoded photographs take tens of megabytes each."""
    pictures: list[weakref.ref[np.ndarray]] = []
    alive = []
    original = model._read_image

    def read(path):
        rgb = original(path)
        pictures.append(weakref.ref(rgb))
        alive.append(sum(picture() is not None for picture in pictures))
        return rgb

    monkeypatch.setattr(model, "_read_image", read)
    result = runner.invoke(app, ["understand", *[str(photo)] * 20, "--model", str(model_folder)])
    assert result.exit_code == 0
    assert result.stdout.count("photo.png: ") == 20
    assert len(alive) == 20
    assert max(alive) <= 2


def test_generate_writes_pictures_with_provenance(model_folder, tmp_path):
    out = tmp_path / "pictures"
    arguments = [
        "--model",
        str(model_folder),
        "--prompt",
        "{} forest",
        "--n",
        "2",
        "--seed",
        "7",
        "--steps",
        "2",
    ]
    result = runner.invoke(
        app, ["generate", "awe=1,fear=3", *arguments, "--out", str(out)], catch_exceptions=False
    )
    paths = [out / "awe+fear-7.png", out / "awe+fear-8.png"]
    assert result.stdout.split() == [str(path) for path in paths]
    written = [read_provenance(path.read_bytes()) for path in paths]
    assert [entry["seed"] for entry in written] == [7, 8]
    assert written[0]["emotions"] == {"awe": 0.25, "fear": 0.75}
    assert paths[0].read_bytes() != paths[1].read_bytes()


def test_a_compact_folder_is_written(tmp_path):
    result = runner.invoke(app, ["compact", str(SHIPPED_FOLDER), "--out", str(tmp_path / "small")])
    assert result.exit_code == 0, result.output
    assert "MB, fingerprint" in result.output
    assert verify(tmp_path / "small")
