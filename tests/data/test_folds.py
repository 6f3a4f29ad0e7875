"""Five folds of the small sets, whatever splits they come with."""

from pathlib import Path

import pytest

from tests.data import layouts
from uniemo_ray.config import DataConfig
from uniemo_ray.data.folder import DataFolder
from uniemo_ray.data.readers import open_folder
from uniemo_ray.data.samples import Entry
from uniemo_ray.data.splits import FOLDS

SPLITS = ("train", "val", "test")


def make(kind: str, root: Path) -> Path:
    if kind == "emotionroi":
        return layouts.emotionroi(root, train=14, test=6)
    if kind == "twitter2":
        return layouts.twitter2(root, count=30)
    layouts.agreement_files(root, layouts.twitter1(root), kept=lambda n, number: 5 - n // 10 >= number)
    return root


def open_fold(kind: str, root: Path, fold: int | None, **data: object) -> DataFolder:
    return open_folder(
        root, DataConfig.model_validate({"kind": kind, "root": str(root), "fold": fold, **data})
    )


def everything(folder: DataFolder) -> list[Entry]:
    return sorted(entry for split in SPLITS for entry in folder.entries(split))


@pytest.mark.parametrize("kind", ["emotionroi", "twitter1", "twitter2"])
def test_every_image_is_tested_in_one_fold_and_never_trained_on_there(tmp_path: Path, kind: str) -> None:
    root = make(kind, tmp_path)
    whole = everything(open_fold(kind, root, None))
    folders = [open_fold(kind, root, fold) for fold in range(FOLDS)]
    assert sorted(entry for folder in folders for entry in folder.entries("test")) == whole
    for fold, folder in enumerate(folders):
        assert everything(folder) == whole
        notes = [note for note in folder.notes if "data.split_seed" in note]
        assert [note.partition(" tests")[0] for note in notes] == [f"fold {fold} of 0 to 4"]
    assert folders[0].space == open_fold(kind, root, None).space


def test_the_official_test_list_is_dealt_as_well(tmp_path: Path) -> None:
    root = make("emotionroi", tmp_path)
    official = set(open_fold("emotionroi", root, None).entries("test"))
    tested = [set(open_fold("emotionroi", root, fold).entries("test")) for fold in range(FOLDS)]
    assert all(official & part and part - official for part in tested)
    assert open_fold("emotionroi", root, 1, split_seed=1).entries("test") != sorted(tested[1])


def test_refused_images_stay_refused(tmp_path: Path) -> None:
    root = make("twitter1", tmp_path)
    file = root / "three_agrees.txt"
    file.write_text(f"{file.read_text()}\nlonely.jpg\n")
    assert [str(item.reason) for item in open_fold("twitter1", root, 0).refused] == ["list_malformed"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"kind": "fi", "root": "x", "fold": 0}, "data.fold is a setting of data.kind emotionroi, twitter1"),
        ({"kind": "sketch", "fold": 0}, "data.fold is a setting of data.kind emotionroi, twitter1"),
        ({"kind": "twitter1", "root": "x", "fold": 5}, "less than or equal to 4"),
    ],
)
def test_a_fold_that_is_none_is_refused(data: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DataConfig.model_validate(data)
