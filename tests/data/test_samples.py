import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from uniemo_ray.data.samples import (
    AttributeNames,
    Entry,
    Rejected,
    Sample,
    normalise_name,
    read_sample,
    resolve_image,
)

ENTRY = Entry("awe_1", "awe", "image/awe/awe_1.jpg", "annotation/awe/awe_1.json")
NAMES = AttributeNames(("sky", "sea"), ("polar_bear", "tree"))
LIMIT = 100_000


@pytest.fixture
def root(tmp_path: Path, encode: Callable[..., bytes]) -> Path:
    for path in (ENTRY.image, ENTRY.annotation):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / ENTRY.image).write_bytes(encode(size=(20, 16)))
    (tmp_path / ENTRY.annotation).write_text("{}")
    return tmp_path


def annotate(root: Path, **facts: Any) -> None:
    (root / ENTRY.annotation).write_text(json.dumps(facts))


def read(root: Path, entry: Entry = ENTRY, *, max_pixels: int = LIMIT) -> Sample | Rejected:
    return read_sample(root, entry, max_pixels=max_pixels, names=NAMES)


def test_whole_sample(root: Path) -> None:
    annotate(
        root,
        emotion="awe",
        scene="Sky",
        object=["Polar Bear", "tree", "TREE"],
        brightness="0.5",
        colorfulness=0,
    )
    data = (root / ENTRY.image).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    assert read(root) == Sample("awe_1", data, "awe", "sky", ("polar_bear", "tree"), digest, 20, 16, 0.5, 0.0)


@pytest.mark.parametrize(
    "facts", [{}, {"scene": None, "object": None}, {"scene": "", "object": [], "brightness": ""}]
)
def test_any_attribute_may_be_missing(root: Path, facts: dict[str, Any]) -> None:
    annotate(root, **facts)
    sample = read(root)
    assert isinstance(sample, Sample)
    assert (sample.scene, sample.objects, sample.brightness, sample.colorfulness) == (None, (), None, None)


def test_one_object_may_stand_without_a_list(root: Path) -> None:
    annotate(root, object="Tree")
    assert read(root).objects == ("tree",)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("facts", "reason", "words"),
    [
        ({"emotion": "fear"}, "label_conflict", "'fear'"),
        ({"scene": "moon"}, "unknown_label", "scene 'moon'"),
        ({"object": ["tree", "Unicorn"]}, "unknown_label", "object 'unicorn'"),
        ({"scene": ["sky", "sea"]}, "annotation_malformed", "one name"),
        ({"object": [1]}, "annotation_malformed", "list of names"),
        ({"object": {"tree": 1}}, "annotation_malformed", "list of names"),
        ({"emotion": 7}, "label_conflict", "7"),
    ],
)
def test_annotation_faults_have_names(root: Path, facts: dict[str, Any], reason: str, words: str) -> None:
    annotate(root, **facts)
    result = read(root)
    assert isinstance(result, Rejected)
    assert (result.image_id, result.path, result.reason) == ("awe_1", ENTRY.annotation, reason)
    assert words in result.detail


@pytest.mark.parametrize("value", [1.5, 127, float("nan"), float("inf"), True, "much", [0.5], 10**400])
def test_a_number_that_no_training_reads_costs_no_image(root: Path, value: Any) -> None:
    annotate(root, scene="sky", brightness=value, colorfulness=0.25)
    sample = read(root)
    assert isinstance(sample, Sample)
    assert (sample.scene, sample.brightness, sample.colorfulness) == ("sky", None, 0.25)


@pytest.mark.parametrize("label", ["Awe", "AWE", " awe "])
def test_a_label_may_have_capitals_in_an_annotation(root: Path, label: str) -> None:
    annotate(root, emotion=label)
    assert isinstance(read(root), Sample)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff", "[" * 100_000, " " * 2_000_000 + "{}"])
def test_broken_annotation_files(root: Path, text: str) -> None:
    (root / ENTRY.annotation).write_bytes(text.encode("latin-1"))
    assert read(root).reason == "annotation_malformed"  # type: ignore[union-attr]


def test_missing_files(root: Path) -> None:
    (root / ENTRY.annotation).unlink()
    assert read(root).reason == "annotation_missing"  # type: ignore[union-attr]
    annotate(root)
    (root / ENTRY.image).unlink()
    assert read(root).reason == "image_missing"  # type: ignore[union-attr]
    (root / ENTRY.image).mkdir()
    assert read(root).reason == "image_unreadable"  # type: ignore[union-attr]


def test_image_faults(root: Path, encode: Callable[..., bytes]) -> None:
    image = root / ENTRY.image
    data = encode(size=(64, 64))
    image.write_bytes(data[: len(data) // 2])
    assert read(root).reason == "image_truncated"  # type: ignore[union-attr]
    image.write_bytes(b"no picture")
    assert read(root).reason == "image_corrupt"  # type: ignore[union-attr]
    image.write_bytes(data)
    assert read(root, max_pixels=64 * 64 - 1).reason == "image_huge"  # type: ignore[union-attr]
    assert isinstance(read(root, max_pixels=64 * 64), Sample)


def test_enormous_file_is_not_read(root: Path) -> None:
    with (root / ENTRY.image).open("wb") as file:
        file.truncate(1 << 40)  # sparse
    assert read(root).reason == "image_huge"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x.jpg", "image/../../x.jpg", "..\\x.jpg", "a\0.jpg", "x" * 300 + ".jpg"]
)
def test_paths_stay_inside_the_folder(root: Path, path: str) -> None:
    assert read(root, ENTRY._replace(image=path)).reason == "path_invalid"  # type: ignore[union-attr]
    assert read(root, ENTRY._replace(annotation=path)).reason == "path_invalid"  # type: ignore[union-attr]


def test_a_name_too_long_for_any_file_is_a_bad_sample(root: Path) -> None:
    """Without ending, so that files of it are looked for, also before it is read."""
    entry = ENTRY._replace(image="image/" + "x" * 300)
    assert resolve_image(root, entry) == entry.image
    assert read(root, entry).reason == "path_invalid"  # type: ignore[union-attr]


def test_unknown_emotion_of_the_split_file(root: Path) -> None:
    result = read(root, ENTRY._replace(emotion="joy"))
    assert isinstance(result, Rejected)
    assert result.reason == "unknown_label"
    assert "'joy'" in result.detail


def test_file_ending_is_found(root: Path, encode: Callable[..., bytes]) -> None:
    entry = ENTRY._replace(image="image/awe/awe_1")
    assert isinstance(read(root, entry), Sample)
    (root / ENTRY.image).unlink()
    assert read(root, entry).reason == "image_missing"  # type: ignore[union-attr]
    (root / "image/awe/awe_1.png").write_bytes(encode(kind="PNG"))
    assert isinstance(read(root, entry), Sample)


def test_unlisted_names_are_taken_when_nothing_is_listed(root: Path) -> None:
    annotate(root, scene="Moon  Base")
    sample = read_sample(root, ENTRY, max_pixels=LIMIT)
    assert isinstance(sample, Sample)
    assert sample.scene == "moon_base"


@pytest.mark.parametrize(
    ("name", "expected"), [("Tree", "tree"), (" Polar  Bear ", "polar_bear"), ("a_B c", "a_b_c")]
)
def test_normal_names(name: str, expected: str) -> None:
    assert normalise_name(name) == expected == normalise_name(expected)
