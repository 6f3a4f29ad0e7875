import json
import shutil
from functools import partial
from pathlib import Path

import pytest

from tests.data import layouts
from uniemo_ray.config import DataConfig
from uniemo_ray.data.check import check_folder
from uniemo_ray.data.readers import open_folder
from uniemo_ray.data.samples import Rejected
from uniemo_ray.emotions import EMOTIONS


def break_three(root: Path) -> None:
    (root / "image/awe/awe_train0.jpg").write_bytes(b"no picture")
    (root / "annotation/fear/fear_val0.json").unlink()
    (root / "image/anger/anger_test0.jpg").unlink()


def test_good_folder(emoset: Path) -> None:
    report = check_folder(emoset)
    assert report.is_usable
    assert not report.rejected
    assert not report.reasons
    assert not report.notes
    assert report.listed == report.usable == {"train": 16, "val": 8, "test": 8}
    assert report.per_emotion == dict.fromkeys(EMOTIONS, 2)
    assert report.with_scene == report.with_object == 32


@pytest.mark.parametrize("workers", [1, 2])
def test_problems_are_named_file_by_file(emoset: Path, workers: int) -> None:
    break_three(emoset)
    seen: list[Rejected] = []
    progress: list[tuple[int, int]] = []
    report = check_folder(
        emoset, workers=workers, on_rejected=seen.append, on_progress=lambda *at: progress.append(at)
    )
    assert report.reasons == {"annotation_missing": 1, "image_corrupt": 1, "image_missing": 1}
    assert [(item.split, item.path) for item in report.rejected] == [
        ("train", "image/awe/awe_train0.jpg"),
        ("val", "annotation/fear/fear_val0.json"),
        ("test", "image/anger/anger_test0.jpg"),
    ]
    assert seen == list(report.rejected)
    assert report.usable == {"train": 15, "val": 7, "test": 7}
    assert report.is_usable
    assert progress[-1] == (32, 32)


def test_list_is_bounded_and_counts_are_not(emoset: Path) -> None:
    break_three(emoset)
    seen: list[Rejected] = []
    report = check_folder(emoset, keep=1, on_rejected=seen.append)
    assert len(report.rejected) == 1
    assert len(seen) == 3
    assert sum(report.reasons.values()) == 3


def test_unreadable_folder_is_a_report_too(emoset: Path) -> None:
    (emoset / "val.json").write_text("{")
    report = check_folder(emoset)
    assert not report.is_usable
    assert "val.json: no valid JSON" in report.faults[0]


def test_emotion_that_loses_all_its_images_is_a_fault(emoset: Path) -> None:
    for number in range(2):
        (emoset / f"image/awe/awe_train{number}.jpg").unlink()
    (fault,) = check_folder(emoset).faults
    assert "no usable training image of awe" in fault


def test_set_without_attributes_is_a_note(emoset: Path) -> None:
    for path in emoset.glob("annotation/*/*.json"):
        path.write_text("{}")
    report = check_folder(emoset)
    assert report.is_usable
    assert report.with_scene == report.with_object == 0
    assert len(report.notes) == 2
    assert "without the contrastive scene term" in report.notes[0]


def test_duplicates_are_listed(emoset: Path) -> None:
    rows = json.loads((emoset / "val.json").read_text())
    (emoset / "val.json").write_text(json.dumps([*rows, rows[0]]))
    report = check_folder(emoset)
    assert report.reasons == {"duplicate_id": 1}
    assert report.listed["val"] == 9
    assert report.usable["val"] == 8


def test_the_same_image_in_two_splits_is_a_note_and_listed(emoset: Path) -> None:
    shutil.copy(emoset / "image/awe/awe_train0.jpg", emoset / "image/fear/fear_test0.jpg")
    report = check_folder(emoset)
    assert report.is_usable
    assert not report.reasons
    (duplicate,) = report.duplicates
    assert [place.image_id for place in duplicate.places] == ["awe_train0", "fear_test0"]
    assert (duplicate.is_leak, duplicate.is_conflict) == (True, True)
    assert [note.partition(":")[2] for note in report.notes] == [
        " 1 (awe_train0 in train and fear_test0 in test)"
    ] * 2


@pytest.mark.parametrize("workers", [1, 2])
def test_other_kinds_are_read_by_their_readers(tmp_path: Path, workers: int) -> None:
    root = layouts.emotionroi(tmp_path)
    (root / "images/joy/1.jpg").write_bytes(b"no picture")
    layouts.put(root / "images/joy/99.jpg")
    with (root / "training_testing_split/testing.txt").open("a") as file:
        file.write("joy/99.jpg\njoy/100.jpg\nneutral/1.jpg\n")
    shutil.copy(root / "images/fear/1.jpg", root / "images/joy/99.jpg")
    reader = partial(open_folder, data=DataConfig(kind="emotionroi", root=str(root)))
    report = check_folder(root, reader=reader, workers=workers)
    assert report.reasons == {"image_corrupt": 1, "image_missing": 1, "unknown_label": 1}
    assert report.listed == {"train": 78, "val": 6, "test": 39}
    assert sum(report.usable.values()) == 78 + 6 + 39 - 3
    assert set(report.per_emotion) == {"anger", "disgust", "fear", "joy", "sadness", "surprise"}
    assert report.is_usable
    assert len(report.duplicates) == 1
