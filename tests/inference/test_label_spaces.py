"""Models of every label space: their folder, understanding and generation."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.inference.conftest import random_heads, random_parts
from tests.label_spaces import BARE, OWN, SPACES
from uniemo_ray import UniEmo
from uniemo_ray.emotions import MIKELS, SENTIMENT, LabelSpace
from uniemo_ray.inference.checksums import CONFIG, write_checksums
from uniemo_ray.inference.model_folder import load_model_folder, save_model_folder
from uniemo_ray.inference.model_source import describe_model
from uniemo_ray.inference.provenance import read_provenance

PICTURE = np.random.default_rng(0).integers(0, 256, size=(32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=SPACES)
def space(request: pytest.FixtureRequest) -> LabelSpace:
    return SPACES[request.param]


@pytest.fixture(scope="module")
def folder(space, clip, pipeline_folder, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("of-a-space") / "model"
    save_model_folder(random_parts(clip, random_heads(space), pipeline_folder, space), target)
    return target


@pytest.fixture(scope="module")
def model(folder: Path) -> UniEmo:
    return UniEmo.from_pretrained(folder)


def test_a_folder_keeps_labels_and_valences(folder, model, space) -> None:
    assert model.parts.labels == space
    assert model.parts.space.labels == space.labels
    assert model.parts.scorers is not None
    assert model.parts.scorers.labels == space.labels
    assert describe_model(folder)[0] == space
    header = json.loads((folder / CONFIG).read_text())
    assert header["emotions"] == list(space.labels)
    assert ("valences" in header) == (space in (OWN, BARE))


def test_understanding_names_the_labels_and_a_valence_where_there_is_one(model, space) -> None:
    (found,) = model.understand([PICTURE])
    assert tuple(found.emotions) == space.labels
    assert sum(found.emotions.values()) == pytest.approx(1, abs=1e-5)
    assert found.top in space.labels
    if space.has_valence:
        sides = {
            side: sum(p for name, p in found.emotions.items() if space.valence(name) == side)
            for side in ("positive", "negative")
        }
        assert found.valence == max(sides, key=lambda side: sides[side])
    else:
        assert found.valence is None


def test_generation_of_a_label_and_of_a_mixture(model, space) -> None:
    first, *_, last = space.labels
    (image,) = model.generate(first, seed=3)
    assert image.provenance["emotions"] == {first: 1.0}
    (again,) = model.generate({first: 2.0}, "{}", seed=3)
    np.testing.assert_array_equal(np.asarray(image), np.asarray(again))
    with pytest.raises(ValueError, match=f"holds no image of '{last}'"):
        model.generate(last)
    if len(space.labels) > 2:
        second = space.labels[1]
        (mixed,) = model.generate({second: 1, first: 1}, seed=3)
        assert list(mixed.provenance["emotions"]) == [first, second]


def test_labels_of_another_space_are_unknown(model, space) -> None:
    strange = "awe" if space != MIKELS else "joy"
    with pytest.raises(ValueError, match=f"unknown emotion '{strange}': expected one of {space.labels[0]}"):
        model.generate(strange)


def test_each_label_weighs_attributes_by_its_own_coefficients(model, space) -> None:
    """The condition of a label uses the column of that label, whatever its position among the eight is."""
    table = {row["attribute"]: row for row in model.parts.coefficients.to_pylist()}
    for label in space.labels[:-1]:
        (image,) = model.generate(label, seed=5)
        (attributes,) = image.provenance["attributes"]
        wanted = table[attributes["scene"]][f"alpha_{label}"]
        assert attributes["scene_weight"] == pytest.approx(wanted, rel=1e-5)


def test_damaged_valences_are_refused_in_one_line(folder, space, tmp_path) -> None:
    if space != OWN:
        pytest.skip("one space is enough")
    header = json.loads((folder / CONFIG).read_text())
    for valences in ({"joy": "positive"}, ["calm"], 3):
        target = tmp_path / "config.json"
        target.write_text(json.dumps({**header, "valences": valences}))
        with pytest.raises(ValueError, match=r"config\.json") as caught:
            describe_model(tmp_path)
        assert "\n" not in str(caught.value)


def test_a_model_of_eight_emotions_states_no_valences(parts, tmp_path) -> None:
    """So that the folder is what earlier versions have written, byte by byte, and read."""
    fingerprint = save_model_folder(parts, tmp_path / "model")
    header = json.loads((tmp_path / "model" / CONFIG).read_text())
    assert list(header) == ["format", "version", "emotions", "names", "config"]
    assert load_model_folder(tmp_path / "model").fingerprint == fingerprint
    assert write_checksums(tmp_path / "model") == fingerprint


def test_own_labels_like_a_known_space_are_that_space(clip, pipeline_folder, tmp_path) -> None:
    parts = random_parts(clip, random_heads(SENTIMENT), pipeline_folder, SENTIMENT)
    save_model_folder(parts, tmp_path / "model")
    assert describe_model(tmp_path / "model")[0] is SENTIMENT


def test_a_label_of_any_script_is_in_the_file_of_its_image(clip, pipeline_folder, tmp_path) -> None:
    parts = random_parts(clip, random_heads(OWN), pipeline_folder, OWN)
    parts.space.counts[:] = 9
    (image,) = UniEmo(parts).generate("très_triste", seed=1)
    image.save(tmp_path / "très_triste-1.png")
    with Image.open(tmp_path / "très_triste-1.png") as saved:
        assert read_provenance(saved)["emotions"] == {"très_triste": 1.0}
