"""Lists of EmoSet as other machines and releases write them."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from uniemo_ray.data.check import check_folder
from uniemo_ray.data.emoset import EmoSetFolder
from uniemo_ray.emotions import EMOTIONS

Row = list[str]
SPLITS = ("train", "val", "test")


def rewrite(root: Path, change: Callable[[Row], Row]) -> None:
    for split in SPLITS:
        rows = json.loads((root / f"{split}.json").read_text())
        (root / f"{split}.json").write_text(json.dumps([change(row) for row in rows]))


def rename(root: Path, change: Callable[[str], str]) -> None:
    for file in sorted((root / "image").rglob("*.jpg")):
        file.rename(file.with_name(change(file.name)))


def accented(row: Row) -> Row:
    return [row[0], row[1].replace("_t", "_\u00e9t").replace("_v", "_\u00e9v"), row[2]]


def is_whole(root: Path) -> bool:
    report = check_folder(root)
    return report.usable == {"train": 16, "val": 8, "test": 8} and not report.faults and not report.rejected


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda row: [row[0], *(path.replace("/", "\\") for path in row[1:])], ""),
        (lambda row: [row[0], *(f"./{path}" for path in row[1:])], ""),
        (lambda row: [row[0].capitalize(), *row[1:]], ""),
        (lambda row: [f"{row[0].upper()} ", *row[1:]], ""),
        (lambda row: [row[0].capitalize(), Path(row[1]).stem], ""),
        (lambda row: [row[0], *(path.upper() for path in row[1:])], "other capitals"),
        (lambda row: [row[0], *(f"/{path}" for path in row[1:])], "other folders in front"),
        (lambda row: [row[0], *(f"EmoSet-118K/{path}" for path in row[1:])], "other folders in front"),
    ],
    ids=["backslashes", "dot", "Capital", "UPPER", "ids", "paths in capitals", "root", "set's folder"],
)
def test_lists_of_other_machines_are_read(emoset: Path, change: Callable[[Row], Row], note: str) -> None:
    rewrite(emoset, change)
    assert is_whole(emoset)
    notes = EmoSetFolder(emoset).notes
    assert len(notes) == (3 if note else 0)
    if note:
        assert notes[0].startswith("train.json: 16 listed images ")
        assert note in notes[0]
        assert "image/amusement/amusement_train0.jpg for example)" in notes[0]


def test_absolute_paths_inside_the_folder_are_read(emoset: Path) -> None:
    rewrite(emoset, lambda row: [row[0], *(str(emoset / path) for path in row[1:])])
    assert is_whole(emoset)


@pytest.mark.parametrize("has_ids", [False, True])
def test_endings_in_capitals_are_found(emoset: Path, has_ids: bool) -> None:
    rename(emoset, lambda name: name.replace(".jpg", ".JPG"))
    if has_ids:
        rewrite(emoset, lambda row: [row[0], Path(row[1]).stem])
    assert is_whole(emoset)


@pytest.mark.parametrize(("listed", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_another_unicode_form_are_found(emoset: Path, listed: str, stored: str) -> None:
    for split in SPLITS:
        for row in json.loads((emoset / f"{split}.json").read_text()):
            (emoset / row[1]).rename(emoset / unicodedata.normalize(stored, accented(row)[1]))
    rewrite(emoset, lambda row: [unicodedata.normalize(listed, text) for text in accented(row)])
    assert is_whole(emoset)


def test_class_folders_with_capitals_are_found(emoset: Path) -> None:
    for emotion in EMOTIONS:
        for part in ("image", "annotation"):
            (emoset / part / emotion).rename(emoset / part / emotion.capitalize())
    assert is_whole(emoset)


def test_a_file_that_is_not_there_keeps_its_listed_name(emoset: Path) -> None:
    (emoset / "image/awe/awe_train0.jpg").unlink()
    (rejected,) = check_folder(emoset).rejected
    assert (rejected.reason, rejected.path) == ("image_missing", "image/awe/awe_train0.jpg")


@pytest.mark.parametrize("make", [int, str])
def test_the_first_release_lists_only_emotions(emoset: Path, make: Callable[[int], int | str]) -> None:
    table = {label: make(index) for index, label in enumerate(EMOTIONS)}
    text = json.dumps({"label2idx": table, "idx2label": {str(i): label for i, label in enumerate(EMOTIONS)}})
    (emoset / "info.json").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert is_whole(emoset)
    folder = EmoSetFolder(emoset)
    assert folder.names == ((), ())
    assert ["lists no" in note for note in folder.notes] == [True, True]
