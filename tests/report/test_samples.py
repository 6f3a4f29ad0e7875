import base64
import io

import pyarrow as pa
import pytest
from PIL import Image

from uniemo_ray.report.samples import ShownSample, embed, first_pictures, pick_samples


def encoded(size: tuple[int, int], kind: str = "PNG", mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 128).save(buffer, kind)
    return buffer.getvalue()


def decoded(uri: str) -> bytes:
    return base64.b64decode(uri.partition(",")[2])


def test_small_png_goes_in_byte_for_byte() -> None:
    content = encoded((64, 64))
    picture = embed(ShownSample("a", "real", "awe", content))
    assert picture.is_pixel_art
    assert picture.uri.startswith("data:image/png;base64,")
    assert decoded(picture.uri) == content


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "RGB"), ("PNG", "RGBA"), ("JPEG", "L"), ("JPEG", "CMYK")])
def test_large_images_are_shrunk(kind: str, mode: str) -> None:
    picture = embed(ShownSample("a", "real", "awe", encoded((600, 300), kind, mode)))
    assert not picture.is_pixel_art
    with Image.open(io.BytesIO(decoded(picture.uri))) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (256, 128), "RGB")


@pytest.mark.parametrize("content", [b"", b"no image", encoded((300, 300))[:200]])
def test_unreadable_image_is_named(content: bytes) -> None:
    with pytest.raises(ValueError, match="sample 'r1-awe'"):
        embed(ShownSample("r1-awe", "generated", "awe", content))


@pytest.fixture
def images() -> pa.Table:
    ids = ["e", "b", "c", "a", "d"]
    return pa.table({
        "image_id": ids, "emotion": ["awe", "awe", "fear", "awe", "awe"],
        "image": [b"e", b"b", b"c", None, b"d"], "scene": ["sky", "pond", None, "park", "sky"],
        "scene_weight": pa.array([0.5, 0.25, None, None, None], pa.float32()),
    })  # fmt: skip


def test_first_pictures_by_id_and_no_missing_one(images: pa.Table) -> None:
    found = pick_samples([images.slice(0, 3), images.slice(3)], source="generated", round_=1, per_emotion=2)
    assert {(sample.image_id, sample.emotion) for sample in found} == {
        ("b", "awe"),
        ("d", "awe"),
        ("c", "fear"),
    }
    by_id = {sample.image_id: sample for sample in found}
    assert (by_id["b"].scene, by_id["b"].scene_weight, by_id["b"].round) == ("pond", 0.25, 1)
    assert by_id["c"].scene is None
    assert by_id["b"].kept is None


def test_scores_and_verdicts_find_their_picture(images: pa.Table) -> None:
    ids = ["c", "b", "d", "zzz"]
    scores = pa.table({
        "image_id": ids, "emo_score": [0.3, 0.2, 0.4, 1.0],
        "predicted": ["anger", "fear", "awe", "awe"], "scene": ["x"] * 4,
    })  # fmt: skip
    kept = pa.table({"image_id": ids, "kept": [True, False, True, True]})
    found = pick_samples([images], source="generated", per_emotion=2, scores=scores, kept=kept)
    by_id = {sample.image_id: sample for sample in found}
    assert (by_id["b"].emo_score, by_id["b"].predicted, by_id["b"].kept) == (0.2, "fear", False)
    assert (by_id["c"].emo_score, by_id["c"].predicted, by_id["c"].kept) == (0.3, "anger", True)
    assert by_id["b"].scene == "pond"


def test_of_several_objects_the_first_is_named() -> None:
    table = pa.table({
        "image_id": ["a", "b"], "emotion": ["awe", "awe"], "image": [b"a", b"b"],
        "objects": [["bird", "boat"], []],
    })  # fmt: skip
    assert [sample.object for sample in pick_samples([table], source="real")] == ["bird", None]


def test_the_first_pictures_are_found_without_reading_pictures(images: pa.Table) -> None:
    """The same as are picked from all tables, and in which table each lies."""
    reasons = pa.array([None, None, None, "not generated", None], pa.string())
    table = images.append_column("reason", reasons)
    columns = table.select(["image_id", "emotion", "reason"])
    found = first_pictures([columns.slice(0, 3), columns.slice(3)], per_emotion=2)
    assert found == {"b": 0, "d": 1, "c": 0}
    picked = pick_samples([images.slice(0, 3), images.slice(3)], source="generated", per_emotion=2)
    assert {sample.image_id for sample in picked} == set(found)
