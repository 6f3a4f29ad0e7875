"""EmotionROI: its official lists, and what may be wrong with them."""

from pathlib import Path

import pytest

from tests.data import layouts
from uniemo_ray.data.emotionroi import read_emotionroi
from uniemo_ray.data.folder import FolderError, ListedFolder
from uniemo_ray.emotions import EKMAN


def read(root: Path) -> ListedFolder:
    return read_emotionroi(root, seed=0)


def sizes(folder: ListedFolder) -> list[int]:
    return [len(folder.entries(split)) for split in ("train", "val", "test")]


def training_list(root: Path) -> Path:
    return root / "training_testing_split" / "training.txt"


@pytest.mark.parametrize("lists", ["training_testing_split", "."])
def test_official_lists_with_validation_drawn_from_training(tmp_path: Path, lists: str) -> None:
    folder = read(layouts.emotionroi(tmp_path, train=17, test=5, lists=lists))
    assert sizes(folder) == [6 * 16, 6, 6 * 5]
    assert folder.space == EKMAN
    assert folder.refused == ()
    assert {entry.image_id for entry in folder.entries("test")} == {
        f"{label}/{n}.jpg" for label in EKMAN.labels for n in range(18, 23)
    }
    assert all((tmp_path / entry.image).is_file() for entry in folder.entries("train"))
    assert folder.entries("train")[0].image.startswith("images/anger/")
    assert [note.partition(":")[0] for note in folder.notes] == ["the set has no validation split"]


def test_stimuli_maps_are_never_taken_for_images(tmp_path: Path) -> None:
    layouts.emotionroi(tmp_path)
    for file in training_list(tmp_path).parent.iterdir():
        file.unlink()
    folder = read(tmp_path)
    assert sum(sizes(folder)) == 6 * 20
    assert folder.refused == ()
    assert all(
        e.image.startswith("images/") for split in ("train", "val", "test") for e in folder.entries(split)
    )


def test_bad_lines_are_refused_and_stop_nothing(tmp_path: Path) -> None:
    layouts.emotionroi(tmp_path)
    text = training_list(tmp_path).read_text()
    bad = "12.jpg\nneutral/1.jpg\nanger/1.jpg\njoy/20.jpg\nfear/\n\nimages\\joy\\999.jpg\n"
    training_list(tmp_path).write_text(text + bad)
    folder = read(tmp_path)
    found = {(item.image_id, str(item.reason), item.split) for item in folder.refused}
    assert found == {
        ("training.txt:85", "list_malformed", "train"),
        ("neutral/1.jpg", "unknown_label", "train"),
        ("anger/1.jpg", "duplicate_id", "train"),
        ("training.txt:89", "list_malformed", "train"),
        ("joy/20.jpg", "duplicate_id", "test"),
    }
    details = " ".join(item.detail for item in folder.refused)
    assert "already listed in training.txt:1" in details
    assert "expected class/image.jpg, got '12.jpg'" in details
    # A missing image is found when it is read.
    assert "joy/999.jpg" in {e.image_id for split in ("train", "val") for e in folder.entries(split)}


def test_images_in_no_list_are_a_note(tmp_path: Path) -> None:
    layouts.emotionroi(tmp_path)
    layouts.put(tmp_path / "images/joy/77.jpg")
    note = read(tmp_path).notes[1]
    assert note.startswith("1 images are not listed in training.txt or testing.txt")
    assert "images/joy/77.jpg" in note


def test_folders_in_upper_case_are_found_by_the_lists(tmp_path: Path) -> None:
    layouts.emotionroi(tmp_path)
    (tmp_path / "images/joy").rename(tmp_path / "images/Joy")
    folder = read(tmp_path)
    assert {e.image.split("/")[1] for e in folder.entries("test") if e.emotion == "joy"} == {"Joy"}


def test_one_list_without_the_other(tmp_path: Path) -> None:
    layouts.emotionroi(tmp_path)
    training_list(tmp_path).unlink()
    with pytest.raises(FolderError, match=r"training\.txt is missing beside the other split list"):
        read(tmp_path)


def test_list_that_is_no_text(tmp_path: Path) -> None:
    layouts.emotionroi(tmp_path)
    training_list(tmp_path).write_bytes(b"joy/1.jpg\n\xff\xfe")
    with pytest.raises(FolderError, match=r"training\.txt: no text in UTF-8"):
        read(tmp_path)


def test_class_without_training_line(tmp_path: Path) -> None:
    layouts.emotionroi(tmp_path)
    kept = [line for line in training_list(tmp_path).read_text().splitlines() if not line.startswith("joy/")]
    training_list(tmp_path).write_text("\n".join(kept))
    with pytest.raises(FolderError, match="no training image of joy; every class needs at least one"):
        read(tmp_path)
