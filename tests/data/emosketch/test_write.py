import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from uniemo_ray.data.check import check_folder
from uniemo_ray.data.emoset import EmoSetFolder
from uniemo_ray.data.emosketch import write as module
from uniemo_ray.data.emosketch.labels import measure_brightness, measure_colorfulness
from uniemo_ray.data.emosketch.rule import load_rule
from uniemo_ray.data.emosketch.write import to_png, write_images, write_sketch
from uniemo_ray.emotions import EMOTIONS

SETTINGS: dict[str, Any] = {"train": 70, "val": 9, "test": 12, "seed": 0, "size_px": 32}


def contents(root: Path) -> dict[str, str]:
    """Digest of every file."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def sketch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sketch(tmp_path_factory.mktemp("sketch") / "set", **SETTINGS)


def test_read_by_the_emoset_reader_without_a_complaint(sketch: Path) -> None:
    report = check_folder(sketch)
    assert report.is_usable
    assert not report.reasons
    assert not report.notes
    assert report.usable == {"train": 70, "val": 9, "test": 12}
    assert report.with_scene == report.with_object == 91
    names = EmoSetFolder(sketch).names
    assert (names.scenes, names.objects) == (load_rule().scenes, load_rule().objects)


def test_same_bytes_with_any_number_of_workers(sketch: Path, tmp_path: Path) -> None:
    again = write_sketch(tmp_path / "again", **SETTINGS, workers=2)
    assert contents(again) == contents(sketch)


def test_an_image_depends_on_seed_split_and_index_only(sketch: Path, tmp_path: Path) -> None:
    larger = contents(write_sketch(tmp_path / "larger", **{**SETTINGS, "train": 80, "val": 1}))
    for name, digest in contents(sketch).items():
        if name.startswith(("image/", "annotation/")) and "_val_" not in name:
            assert larger[name] == digest
    images = [digest for name, digest in contents(sketch).items() if name.startswith("image/")]
    assert len(set(images)) == 91
    other = contents(write_sketch(tmp_path / "other", **{**SETTINGS, "seed": 1}))
    assert not set(images) & set(other.values())


def test_info_is_emosets_own_form(sketch: Path) -> None:
    info = json.loads((sketch / "info.json").read_text())
    assert info["emotion"]["label2idx"] == {name: i for i, name in enumerate(EMOTIONS)}
    assert info["emotion"]["idx2label"]["7"] == "sadness"
    assert len(info["scene"]["label2idx"]) == 16
    assert len(info["object"]["label2idx"]) == 24
    # EmoSet's own reader looks attributes up by their text.
    for path in sketch.glob("annotation/*/*.json"):
        facts = json.loads(path.read_text())
        assert facts["emotion"] == path.parent.name
        assert facts["image_id"] == path.stem
        for key in ("brightness", "colorfulness", "scene"):
            assert str(facts[key]) in info[key]["label2idx"]
        assert facts["object"][0] in info["object"]["label2idx"]
        assert len(facts["object"]) == 1


def test_brightness_and_colorfulness_are_measured(sketch: Path) -> None:
    for path in list(sketch.glob("annotation/*/*.json"))[:10]:
        facts = json.loads(path.read_text())
        image = sketch / "image" / path.parent.name / f"{path.stem}.png"
        rgb = np.asarray(Image.open(image))
        assert rgb.shape == (32, 32, 3)
        assert facts["brightness"] == round(measure_brightness(rgb), 1)
        assert facts["colorfulness"] == round(measure_colorfulness(rgb), 1)


def test_readme_says_plainly_what_the_labels_are(sketch: Path) -> None:
    text = (sketch / "README.txt").read_text()
    assert "NOT human ratings" in text
    assert "rule drawn from" in text
    assert "EmoSet-118K" in text
    assert "71.2%" in text
    assert "50.5%" in text
    assert "80.9%" in text


def test_finished_folder_is_left_as_it_is(sketch: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in sketch.rglob("*")}
    write_sketch(sketch, **SETTINGS)
    assert {path: path.stat().st_mtime_ns for path in sketch.rglob("*")} == before


def test_half_finished_folder_is_continued(sketch: Path, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def kill(done: int, total: int) -> None:
        assert total == 91
        if done >= 50:
            raise KilledError

    root = tmp_path / "half"
    with pytest.raises(KilledError):
        write_sketch(root, **SETTINGS, on_progress=kill)
    assert not (root / "train.json").exists()
    assert not (root / "info.json").exists()
    kept = next(root.glob("image/*/*.png"))
    stamp = kept.stat().st_mtime_ns
    # As if killed between an image and its annotation, and within a write.
    lost = sorted(root.glob("annotation/*/*.json"))[-1]
    lost.unlink()
    (root / "image" / "awe" / ".tmp-0123456789abcdef.part").write_bytes(b"half")
    write_sketch(root, **SETTINGS)
    assert contents(root) == contents(sketch)
    assert kept.stat().st_mtime_ns == stamp


def test_lost_list_is_written_again(sketch: Path, tmp_path: Path) -> None:
    root = write_sketch(tmp_path / "set", **SETTINGS)
    (root / "val.json").unlink()
    write_sketch(root, **SETTINGS)
    assert contents(root) == contents(sketch)


@pytest.mark.parametrize("change", [{"seed": 1}, {"train": 71}, {"size_px": 48}])
def test_other_settings_are_refused(sketch: Path, change: dict[str, int]) -> None:
    before = contents(sketch)
    (key,) = change
    with pytest.raises(ValueError, match=f"holds another EmoSketch.*{key} .*name another folder"):
        write_sketch(sketch, **{**SETTINGS, **change})
    assert contents(sketch) == before


def test_foreign_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty and no EmoSketch"):
        write_sketch(tmp_path, **SETTINGS)
    with pytest.raises(ValueError, match="not empty and no EmoSketch"):
        write_sketch(tmp_path / "holiday.txt", **SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.txt"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"val": 0}, "val must be at least 1, got 0"),
        ({"seed": -1}, "seed must be 0 or larger"),
        ({"train": 3}, "3 training images leave no image of"),
    ],
)
def test_impossible_settings_write_nothing(tmp_path: Path, change: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        write_sketch(tmp_path / "x", **{**SETTINGS, **change})
    assert not (tmp_path / "x").exists()


def test_png_is_stored_whole() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    data = to_png(rgb)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), rgb)
    assert rgb.nbytes < len(data) < rgb.nbytes + 300
    first_block = data[data.index(b"IDAT") + 6]  # after the name and the two bytes of the zlib header
    assert first_block & 0b110 == 0  # a stored block


def test_write_images_is_a_piece_of_the_whole(sketch: Path, tmp_path: Path) -> None:
    module._make_folders(tmp_path, EMOTIONS)
    assert write_images(tmp_path, "train", range(10, 14), seed=0, size_px=32) == 4
    whole = contents(sketch)
    pieces = contents(tmp_path)
    assert len(pieces) == 8
    assert all(whole[name] == digest for name, digest in pieces.items())
