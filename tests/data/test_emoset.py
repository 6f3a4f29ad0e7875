import json
from pathlib import Path
from typing import Any

import pytest

from uniemo_ray.data.emoset import EmoSetFolder, Entry, FolderError
from uniemo_ray.emotions import EMOTIONS


def load(path: Path) -> Any:
    return json.loads(path.read_text())


def faults(root: Path) -> tuple[str, ...]:
    with pytest.raises(FolderError) as error:
        EmoSetFolder(root)
    assert str(error.value) == "\n".join(error.value.faults)
    return error.value.faults


def test_entries_and_names(emoset: Path) -> None:
    folder = EmoSetFolder(emoset)
    assert [len(folder.entries(split)) for split in ("train", "val", "test")] == [16, 8, 8]
    paths = "image/amusement/amusement_train0.jpg", "annotation/amusement/amusement_train0.json"
    assert folder.entries("train")[0] == Entry("amusement_train0", "amusement", *paths)
    assert folder.names.scenes == ("snowy_mountain", "beach")
    assert folder.names.objects == ("polar_bear", "tree", "toy")
    assert folder.notes == []
    assert folder.refused == ()
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        folder.entries("dev")


@pytest.mark.parametrize("length", [2, 3, 4])
def test_older_release_has_an_id_in_second_place(emoset: Path, length: int) -> None:
    new = EmoSetFolder(emoset).entries("val")
    rows = {
        2: [[e.emotion, e.image_id] for e in new],
        3: [[e.emotion, e.image_id, e.annotation] for e in new],
        4: [[e.emotion, e.image_id, e.image, e.annotation] for e in new],
    }[length]
    (emoset / "val.json").write_text(json.dumps(rows))
    old = EmoSetFolder(emoset).entries("val")
    assert [entry.image_id for entry in old] == [entry.image_id for entry in new]
    assert [entry.annotation for entry in old] == [entry.annotation for entry in new]
    assert [entry.image.removesuffix(".jpg") + ".jpg" for entry in old] == [entry.image for entry in new]


def test_files_numbered_per_folder_get_distinct_ids(emoset: Path) -> None:
    rows = [[emotion, f"image/{emotion}/001.jpg", f"annotation/{emotion}/001.json"] for emotion in EMOTIONS]
    (emoset / "test.json").write_text(json.dumps(rows))
    folder = EmoSetFolder(emoset)
    assert [entry.image_id for entry in folder.entries("test")] == [f"{emotion}_001" for emotion in EMOTIONS]


def test_an_id_counts_once_over_all_splits(emoset: Path) -> None:
    train, test = load(emoset / "train.json"), load(emoset / "test.json")
    (emoset / "test.json").write_text(json.dumps([*test, train[3], test[0]]))
    folder = EmoSetFolder(emoset)
    assert len(folder.entries("test")) == 8
    leaked, doubled = folder.refused
    assert leaked.reason == "duplicate_id"
    assert leaked.split == "test"
    assert "train.json" in leaked.detail
    assert "test.json" in doubled.detail


def test_missing_folder() -> None:
    (fault,) = faults(Path("/nowhere/at/all"))
    assert "no such folder" in fault
    assert "data.root" in fault


def test_every_fault_at_once_one_line_each(emoset: Path) -> None:
    (emoset / "info.json").write_text("{")
    (emoset / "train.json").write_text('{"awe": 1}')
    (emoset / "val.json").write_text("[]")
    (emoset / "test.json").unlink()
    lines = faults(emoset)
    assert len(lines) == 4
    assert all("\n" not in line for line in lines)
    for line, name, words in zip(
        lines,
        ("info", "train", "val", "test"),
        ("no valid JSON", "got dict", "got an empty list", "missing"),
        strict=True,
    ):
        assert f"{name}.json" in line
        assert words in line


@pytest.mark.parametrize(
    "entry",
    [
        "awe",
        [],
        ["awe"],
        ["awe", "image/awe/a.jpg"],
        ["awe", "image/awe/a.jpg", "b.json", "c"],
        ["awe", "id", 3],
        ["awe", "id", "", "a"],
        [1, "image/a.jpg", "a.json"],
        ["awe", "id", "a", "b", "c"],
        {"a": 1},
    ],
    ids=str,
)
def test_entry_of_the_wrong_form(emoset: Path, entry: Any) -> None:
    rows = load(emoset / "train.json")
    (emoset / "train.json").write_text(json.dumps([*rows, entry, entry]))
    (fault,) = faults(emoset)
    assert "train.json: entry 16 is" in fault
    assert "(and 1 more)" in fault
    assert "[emotion, image path" in fault


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ([], "expected a JSON object"),
        ({"scene": {"label2idx": {}}}, "'emotion'"),
        ({"label2idx": {"joy": 0}, "idx2label": {"0": "joy"}}, "unknown emotion 'joy'"),
        ({"emotion": {"label2idx": {"joy": 0}}}, "unknown emotion 'joy'"),
        ({"emotion": ["awe"]}, "emotion: expected {'label2idx'"),
        ({"emotion": {"label2idx": {"awe": 0}}, "scene": {"label2idx": {"sky": "a"}}}, "scene: expected"),
    ],
)
def test_malformed_info(emoset: Path, info: Any, words: str) -> None:
    (emoset / "info.json").write_text(json.dumps(info))
    (fault,) = faults(emoset)
    assert "info.json" in fault
    assert words in fault


def test_emotion_without_training_image(emoset: Path) -> None:
    rows = [row for row in load(emoset / "train.json") if row[0] not in ("fear", "awe")]
    (emoset / "train.json").write_text(json.dumps(rows))
    (fault,) = faults(emoset)
    assert "no training image of awe, fear" in fault


def test_names_missing_from_info_are_a_note(emoset: Path) -> None:
    info = load(emoset / "info.json")
    del info["object"]
    (emoset / "info.json").write_text(json.dumps(info))
    folder = EmoSetFolder(emoset)
    assert folder.names.objects == ()
    assert folder.names.scenes
    assert len(folder.notes) == 1
    assert "no objects" in folder.notes[0]


def test_names_follow_their_indices(emoset: Path) -> None:
    info = load(emoset / "info.json")
    info["scene"] = {"label2idx": {"Beach": 1, "snowy mountain": 0, "Snowy_Mountain": 2}}
    (emoset / "info.json").write_text(json.dumps(info))
    assert EmoSetFolder(emoset).names.scenes == ("snowy_mountain", "beach")
