"""FI and plain class folders: layouts, splits, and folders that are not what they should be."""

from pathlib import Path

import pytest

from tests.data import layouts
from uniemo_ray.config import DataConfig
from uniemo_ray.data.folder import DataFolder, FolderError
from uniemo_ray.data.readers import open_folder
from uniemo_ray.emotions import EKMAN, EMOTIONS, MIKELS, SENTIMENT


def read(root: Path, kind: str = "fi", **settings: object) -> DataFolder:
    return open_folder(root, DataConfig.model_validate({"kind": kind, "root": str(root), **settings}))


def fault(root: Path, kind: str = "fi", **settings: object) -> str:
    with pytest.raises(FolderError) as error:
        read(root, kind, **settings)
    (line,) = error.value.faults
    assert "\n" not in line
    return line


def sizes(folder: DataFolder) -> dict[str, int]:
    return {split: len(folder.entries(split)) for split in ("train", "val", "test")}


def ids(folder: DataFolder, split: str) -> list[str]:
    return [entry.image_id for entry in folder.entries(split)]


def test_fi_is_split_80_5_15_in_every_class(tmp_path: Path) -> None:
    folder = read(layouts.fi(tmp_path, 20))
    assert sizes(folder) == {"train": 8 * 16, "val": 8, "test": 8 * 3}
    assert folder.space == MIKELS
    assert folder.refused == ()
    assert folder.notes == (
        "the set has no splits: 128 train, 8 val, 24 test images were drawn with data.split_seed=0",
    )
    entry = folder.entries("test")[0]
    assert entry.emotion == "amusement"
    assert entry.image == entry.image_id
    assert entry.image.startswith("amusement/amusement_00")
    assert entry.annotation is None
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        folder.entries("dev")


def test_names_in_upper_case_give_the_same_ids_and_splits(tmp_path: Path) -> None:
    layouts.class_folders(tmp_path / "lower", EMOTIONS, 6)
    layouts.class_folders(tmp_path / "upper", [name.title() for name in EMOTIONS], 6)
    lower, upper = read(tmp_path / "lower"), read(tmp_path / "upper")
    for split in ("train", "val", "test"):
        assert ids(lower, split) == ids(upper, split)
    assert upper.entries("train")[0].image.startswith("Amusement/")
    assert ids(read(tmp_path / "lower", split_seed=1), "test") != ids(lower, "test")


def test_split_folders_are_kept(tmp_path: Path) -> None:
    folder = read(layouts.fi_split(tmp_path))
    assert sizes(folder) == {"train": 32, "val": 32, "test": 32}
    assert ids(folder, "val")[0] == "val/amusement/0.JPG"
    assert folder.entries("val")[0].image == "val/AMUSEMENT/0.JPG"
    assert folder.notes == ()


def test_missing_validation_is_drawn_from_training_alone(tmp_path: Path) -> None:
    folder = read(layouts.fi_split(tmp_path, splits=("Training", "testing"), count=17))
    assert sizes(folder) == {"train": 8 * 16, "val": 8, "test": 8 * 17}
    assert all(name.startswith("train/") for split in ("train", "val") for name in ids(folder, split))
    assert folder.notes == (
        "the set has no validation split: 8 of its training images were drawn with data.split_seed=0",
    )


def test_images_may_lie_one_level_down_and_deeper_in_a_class(tmp_path: Path) -> None:
    layouts.fi(tmp_path / "images", 3)
    layouts.put(tmp_path / "images/awe/flickr/a.jpg")
    folder = read(tmp_path)
    found = {entry.image_id: entry.image for split in sizes(folder) for entry in folder.entries(split)}
    assert len(found) == 25
    assert found["awe/flickr/a.jpg"] == "images/awe/flickr/a.jpg"


@pytest.mark.parametrize(
    ("labels", "classes", "space"),
    [
        ("mikels", EMOTIONS, MIKELS),
        ("ekman", EKMAN.labels, EKMAN),
        ("sentiment", ("Positive", "NEGATIVE"), SENTIMENT),
    ],
)
def test_plain_folders_have_the_labels_that_are_said(tmp_path: Path, labels, classes, space) -> None:
    folder = read(layouts.class_folders(tmp_path, classes, 4), "folders", labels=labels)
    assert folder.space == space
    assert {entry.emotion for entry in folder.entries("train")} == set(space.labels)


def test_what_belongs_to_no_class_is_refused_by_name(tmp_path: Path) -> None:
    layouts.fi(tmp_path, 3)
    layouts.put(tmp_path / "neutral/deep/1.jpg")
    layouts.put(tmp_path / "cover.png")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "amusement_agg.csv").write_text("1,http://x,0,5")
    (tmp_path / "awe" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "awe" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "awe" / "._1.jpg").write_bytes(b"x")
    folder = read(tmp_path)
    assert {(item.path, item.reason) for item in folder.refused} == {
        ("neutral/deep/1.jpg", "unknown_label"),
        ("cover.png", "unknown_label"),
    }
    assert "folder 'neutral' is no class of the set" in {item.detail for item in folder.refused}
    assert sum(sizes(folder).values()) == 24
    assert folder.notes[1] == (
        "2 files are no images by their names and are not read (awe/Thumbs.db for example)"
    )


@pytest.mark.parametrize(
    "folder", ["@eaDir", "#recycle", "__MACOSX", "$RECYCLE.BIN", ".thumbnails", ".AppleDouble"]
)
def test_what_the_system_puts_beside_pictures_is_no_data(tmp_path: Path, folder: str) -> None:
    layouts.fi(tmp_path, 3)
    layouts.put(tmp_path / folder / "awe" / "SYNOPHOTO_THUMB_M.jpg")
    layouts.put(tmp_path / "awe" / folder / "awe_0001.jpg" / "SYNOPHOTO_THUMB_M.jpg")
    layouts.put(tmp_path / "awe" / "._awe_0001.jpg")
    found = read(tmp_path)
    assert sum(sizes(found).values()) == 24
    assert found.refused == ()


def test_other_endings_of_jpeg_files_are_images(tmp_path: Path) -> None:
    layouts.fi(tmp_path, 3)
    for name in ("a.jfif", "b.JPE", "c.mpo"):
        layouts.put(tmp_path / "awe" / name)
    assert sum(sizes(read(tmp_path)).values()) == 27


def test_missing_class_is_named_with_what_was_found(tmp_path: Path) -> None:
    layouts.class_folders(tmp_path, ["awe", "Fear"], 3)
    line = fault(tmp_path)
    assert "no folder of amusement, contentment, excitement, anger, disgust, sadness" in line
    assert "found Fear, awe" in line


def test_empty_class_is_named(tmp_path: Path) -> None:
    for path in layouts.fi(tmp_path, 3).glob("awe/*"):
        path.unlink()
    assert fault(tmp_path).endswith("awe: holds no image; the class awe needs at least one")


@pytest.mark.parametrize(
    ("classes", "kind", "words"),
    [
        (EKMAN.labels, "fi", "these are the classes of data.kind=emotionroi"),
        (EMOTIONS, "emotionroi", "these are the classes of data.kind=fi"),
        (("negative", "positive"), "fi", "these are the classes of data.kind=twitter1 or twitter2"),
        (EKMAN.labels, "folders", "folders with data.labels=ekman"),
        (EMOTIONS, "twitter2", "these are the classes of data.kind=fi"),
        ((), "fi", "found no folder"),
    ],
)
def test_set_of_another_kind_is_recognised(tmp_path: Path, classes, kind, words) -> None:
    layouts.class_folders(tmp_path, classes, 3)
    assert words in fault(tmp_path, kind)


@pytest.mark.parametrize("below", ["", "images", "train"])
@pytest.mark.parametrize(("classes", "kind"), [(EMOTIONS, "fi"), (EKMAN.labels, "emotionroi")])
def test_class_folders_given_as_emoset_are_recognised(tmp_path: Path, below: str, classes, kind: str) -> None:
    layouts.class_folders(tmp_path / below, classes, 1)
    assert f"no info.json, but a folder for each of the classes of data.kind={kind}" in fault(
        tmp_path, "emoset"
    )


def test_emoset_is_recognised(emoset: Path) -> None:
    assert "with info.json it looks like data.kind=emoset" in fault(emoset)


def test_two_folders_of_one_class_are_a_fault(tmp_path: Path) -> None:
    layouts.fi(tmp_path, 3)
    layouts.put(tmp_path / "Awe/1.jpg")
    assert "Awe and awe are both the class awe: merge them" in fault(tmp_path)


def test_split_folders_that_do_not_fit(tmp_path: Path) -> None:
    layouts.fi_split(tmp_path, splits=("train", "val"))
    assert "expected split folders train, test and perhaps val, got train, val" in fault(tmp_path)
    layouts.fi_split(tmp_path, splits=("test", "Valid"))
    assert "got Valid, test, train, val" in fault(tmp_path)


def test_split_folders_beside_class_folders(tmp_path: Path) -> None:
    layouts.fi(layouts.fi_split(tmp_path), 3)
    assert "holds class folders beside the split folders" in fault(tmp_path)


def test_too_few_images_to_split(tmp_path: Path) -> None:
    assert "no image for the split val and test" in fault(layouts.fi(tmp_path, 2))


@pytest.mark.parametrize("kind", ["fi", "emotionroi", "twitter1", "twitter2", "folders"])
def test_no_folder(tmp_path: Path, kind: str) -> None:
    assert "no such folder; data.root" in fault(tmp_path / "nothing", kind)


@pytest.mark.parametrize("names", [("train", "dev", "test"), ("Training", "validation", "EVAL")])
def test_split_folders_have_the_names_that_other_tools_write(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = read(layouts.fi_split(tmp_path, splits=names, count=3))
    assert sizes(folder) == {"train": 24, "val": 24, "test": 24}
    assert folder.refused == ()


def test_images_beside_the_split_folders_are_refused_and_not_passed_over(tmp_path: Path) -> None:
    layouts.fi_split(tmp_path)
    for path in ("unlabelled/a.jpg", "extra/AWE/b.jpg", "loose.jpg"):
        layouts.put(tmp_path / path)
    (tmp_path / "extra" / "notes.txt").touch()
    folder = read(tmp_path)
    assert sizes(folder) == {"train": 32, "val": 32, "test": 32}
    refused = {rejected.path: rejected.detail for rejected in folder.refused}
    assert refused == {
        "unlabelled/a.jpg": "folder 'unlabelled' is no split",
        "extra/AWE/b.jpg": "folder 'extra' is no split",
        "loose.jpg": "lies in no split folder",
    }
    assert any("extra/notes.txt" in note for note in folder.notes)


@pytest.mark.parametrize("kind", ["emoset", "fi", "folders"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("data/train-00000-of-00002.parquet", "holds Parquet tables"),
        ("train/data-00000-of-00001.arrow", "holds Arrow tables"),
        ("00000.tar", "holds tar shards, as img2dataset"),
        ("EmoSet-118K.ZIP", "holds archives"),
    ],
)
def test_a_data_set_in_tables_or_archives_is_told_from_an_empty_folder(
    tmp_path: Path, name: str, words: str, kind: str
) -> None:
    layouts.put(tmp_path / name)
    line = fault(tmp_path, kind)
    assert words in line
    assert name in line
    assert "into a folder for each class" in line
