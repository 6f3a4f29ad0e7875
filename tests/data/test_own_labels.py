"""Labels of a user's own: their settings, and folders that have or lack them."""

import unicodedata
from pathlib import Path

import pytest

from tests.data import layouts
from tests.label_spaces import BARE, OWN
from uniemo_ray.config import SPLITS, DataConfig
from uniemo_ray.data.folder import FolderError
from uniemo_ray.data.readers import label_space, open_folder
from uniemo_ray.data.sample_reader import SampleReader
from uniemo_ray.data.samples import ANY_NAMES
from uniemo_ray.emotions import SENTIMENT
from uniemo_ray.settings_file import load_config

LABELS = ["Calm", "tense", "Très triste"]


def data(**changes: object) -> DataConfig:
    return DataConfig.model_validate({"kind": "folders", "root": "/data", "labels": LABELS, **changes})


def test_settings_are_kept_in_one_spelling() -> None:
    found = data(valences={"CALM": "positive", "tense": "negative"})
    assert found.labels == OWN.labels
    assert found.valences == {"calm": "positive", "tense": "negative"}
    assert label_space(found) == OWN
    assert label_space(data()) == BARE
    assert label_space(data(valences=found.valences, valence=True)) == SENTIMENT
    assert DataConfig.model_validate(found.model_dump(mode="json")) == found


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": ["calm"]}, "two labels or more, got calm"),
        ({"labels": ["Calm", "tense", "CALM"]}, "'calm' is there 2 times"),
        ({"labels": ["très", unicodedata.normalize("NFD", "très")]}, "'très' is there 2 times"),
        ({"labels": ["calm", "a/b"]}, "holds '/'"),
        ({"labels": ["calm", 7]}, "labels that are text, got 7"),
        ({"labels": "moods"}, "mikels, ekman, sentiment or a list of your own labels, got 'moods'"),
        ({"valences": {"dull": "positive"}}, "'dull' has a valence but is no label"),
        ({"valences": {"calm": "good"}}, "valences.calm"),
        ({"valences": {"calm": "positive", "CALM": "negative"}}, "there twice, in two spellings: calm, CALM"),
        (
            {"labels": "ekman", "valences": {"joy": "positive"}},
            "data.valences is a setting of your own labels",
        ),
        ({"valence": True}, "data.valence needs labels of both valences"),
        ({"kind": "fi"}, "data.labels is a setting of data.kind 'folders' and 'sketch'"),
        ({"kind": "sketch"}, "data.sketch_classes has no emotions for the label 'calm'"),
        ({"sketch_classes": {"calm": ["awe"]}}, "data.sketch_classes is a setting of data.kind 'sketch'"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(changes, words) -> None:
    values = {"kind": "folders", "root": "/data", "labels": LABELS, **changes}
    with pytest.raises(ValueError, match=words) as caught:
        load_config(None, [], base={"data": values})
    assert "\n" not in str(caught.value)


SKETCH = {"kind": "sketch", "root": None, "labels": ["calm", "tense"]}


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ({"calm": ["awe"], "tense": []}, "no emotions for the label 'tense'"),
        ({"calm": ["awe"], "tense": ["joy"]}, "the emotion 'joy': expected some of amusement"),
        ({"calm": ["awe"], "tense": ["fear", "awe"]}, "'awe' more than once"),
        ({"calm": ["awe"], "tense": ["fear"], "dull": ["anger"]}, "'dull', which is none of data.labels"),
    ],
)
def test_wrong_classes_of_a_sketch_are_refused(classes, words) -> None:
    with pytest.raises(ValueError, match=words):
        data(**SKETCH, sketch_classes=classes)


def test_own_folders_are_read_in_any_case_and_unicode_form(tmp_path: Path) -> None:
    names = ["CALM", "Tense", unicodedata.normalize("NFD", "Très Triste")]
    folder = open_folder(layouts.class_folders(tmp_path, names, 10), data())
    assert folder.space == BARE
    found = {entry.emotion for split in SPLITS for entry in folder.entries(split)}
    assert found == set(BARE.labels)
    assert not folder.refused


@pytest.mark.parametrize("split", ["", "train", "test"])
def test_a_folder_that_is_no_label_is_named_at_the_start(tmp_path: Path, split: str) -> None:
    splits = ["train", "test"] if split else [""]
    for part in splits:
        layouts.class_folders(tmp_path / part, BARE.labels, 6)
    layouts.class_folders(tmp_path / split, ["angry"], 2)
    (tmp_path / splits[0] / "empty").mkdir()
    with pytest.raises(FolderError, match=r"angry: is no label of data.labels \(calm, tense, ") as caught:
        open_folder(tmp_path, data())
    assert len(caught.value.faults) == 1


def test_known_classes_still_refuse_other_folders_image_by_image(tmp_path: Path) -> None:
    layouts.class_folders(tmp_path, ["positive", "negative"], 10)
    layouts.class_folders(tmp_path, ["angry"], 2)
    assert len(open_folder(tmp_path, data(labels="sentiment")).refused) == 2


def test_a_label_without_folder_is_named(tmp_path: Path) -> None:
    layouts.class_folders(tmp_path, ["calm", "tense"], 10)
    with pytest.raises(FolderError, match="no folder of très_triste"):
        open_folder(tmp_path, data())


def test_a_label_that_is_the_name_of_a_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="the label 'test' is the name of a split's folder"):
        open_folder(tmp_path, data(labels=["test", "calm"]))


def test_shards_by_valence_follow_the_valences(tmp_path: Path) -> None:
    """Two own spaces share a name, so the name alone would not tell their shards apart."""
    readers = [
        SampleReader(tmp_path, ANY_NAMES, space.labels, "folders", 10**6, space)
        for space in (OWN, BARE, SENTIMENT)
    ]
    assert len({reader.fingerprint("train", []) for reader in readers}) == 3
