"""Scores of images, and features that do not depend on the neighbours."""

import io

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from uniemo_ray.data.images import ImageError, normalise, to_square
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.feedback.schema import SCORES
from uniemo_ray.inference.heads import EmotionClassifier, LinearHead, ScorerHeads
from uniemo_ray.inference.scorer import FeatureExtractor, Scorer, score_features


def pictures(count: int = 5) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, size=(40, 32 + 3 * i, 3), dtype=np.uint8) for i in range(count)]


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def column(*values) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def batch(images: list[bytes | None], emotions: list[str] | None = None) -> dict[str, np.ndarray]:
    emotions = emotions or [EMOTIONS[i % 8] for i in range(len(images))]
    ids = [f"i{i}" for i in range(len(images))]
    return {"image_id": column(*ids), "image": column(*images), "emotion": column(*emotions)}


@pytest.fixture(scope="module")
def scorer(clip, heads) -> Scorer:
    return Scorer(clip, heads, micro_batch=4)


def test_scores_are_the_definition(scorer: Scorer, clip, heads) -> None:
    squares = [to_square(p, 32) for p in pictures()]
    with torch.no_grad():
        features = clip.model.encode_image(normalise(np.stack(squares), clip.mean, clip.std))
        emotion, scene, object_ = (
            h(features).softmax(dim=1) for h in (heads.emotion, heads.scene, heads.object)
        )
    rows = pa.table(scorer(batch([png(p) for p in pictures()])), schema=SCORES).to_pylist()
    for i, row in enumerate(rows):
        assert row["emo_score"] == pytest.approx(float(emotion[i, i]), abs=1e-5)
        assert row["probabilities"] == pytest.approx(emotion[i].tolist(), abs=1e-5)
        assert row["predicted"] == EMOTIONS[int(emotion[i].argmax())]
        assert row["scene"] == heads.names["scene"][int(scene[i].argmax())]
        assert row["object_probability"] == pytest.approx(float(object_[i].max()), abs=1e-5)
        assert row["sem_score"] == max(row["scene_probability"], row["object_probability"])
        assert row["reason"] is None


def test_neighbours_do_not_matter(scorer: Scorer) -> None:
    data = batch([png(p) for p in pictures()])
    together = scorer(data)
    for i in (0, 4):
        alone = scorer({key: values[i : i + 1] for key, values in data.items()})
        assert alone["probabilities"][0].tolist() == together["probabilities"][i].tolist()
        assert alone["sem_score"][0] == together["sem_score"][i]
        assert alone["clip_feature"][0].tolist() == together["clip_feature"][i].tolist()


def test_known_features_give_the_same_scores(scorer: Scorer) -> None:
    data = batch([png(p) for p in pictures()])
    seen = pa.table(scorer(data), schema=SCORES)
    known = score_features(scorer.heads, {**data, "clip_feature": np.stack(seen["clip_feature"].to_numpy())})
    again = pa.table(known, schema=SCORES)
    for name in ("emo_score", "sem_score", "scene_probability"):
        assert again[name].to_pylist() == pytest.approx(seen[name].to_pylist(), rel=1e-5)
    for name in ("image_id", "predicted", "scene", "object", "reason"):
        assert again[name].to_pylist() == seen[name].to_pylist()


def test_rows_without_a_readable_image_get_a_reason(scorer: Scorer) -> None:
    good = png(pictures()[0])
    data = batch([good, None, b"no picture", good[:60], good], ["awe", "awe", "awe", "awe", "joy"])
    data["reason"] = column(None, "bad_request: prompt", None, None, None)
    rows = pa.table(scorer(data), schema=SCORES).to_pylist()
    assert [row["reason"] is None for row in rows] == [True, False, False, False, False]
    assert rows[1]["reason"] == "bad_request: prompt"
    assert rows[2]["reason"].startswith("image_corrupt")
    assert rows[3]["reason"].startswith("image_")
    assert rows[4]["reason"] == "unknown_emotion: joy"
    for row in rows[1:]:
        assert np.isnan(row["emo_score"])
        assert np.isnan(row["sem_score"])
        assert row["scene"] is None
        assert row["clip_feature"] is None
    alone = scorer(batch([good], ["awe"]))
    assert alone["emo_score"][0] == np.float32(rows[0]["emo_score"])


def test_nothing_readable_at_all(scorer: Scorer) -> None:
    rows = pa.table(scorer(batch([None, b""])), schema=SCORES).to_pylist()
    assert next(row["reason"] for row in rows) == "no_image"
    assert rows[1]["reason"].startswith("image_corrupt")


def test_a_kind_without_names_has_no_say(clip) -> None:
    torch.manual_seed(0)
    heads = ScorerHeads(
        EmotionClassifier(12, 4),
        scene=None,
        object=LinearHead(12, 2),
        scene_names=(),
        object_names=("toy", "lion"),
    )
    row = pa.table(Scorer(clip, heads)(batch([png(pictures()[0])])), schema=SCORES).to_pylist()[0]
    assert row["sem_score"] == row["object_probability"]
    assert np.isnan(row["scene_probability"])


def test_extractor_gives_clip_and_encoder_features(clip, parts) -> None:
    extractor = FeatureExtractor(clip, net=parts.net, micro_batch=4)
    data = batch([png(p) for p in pictures()])
    data["scene"] = column("beach", None, "street", None, None)
    out = extractor(data)
    assert set(out) == {
        "image_id",
        "emotion",
        "scene",
        "clip_feature",
        "cls_feature",
        "patch_feature",
        "logits",
        "scene_feature",
        "object_feature",
    }
    pixels = normalise(np.stack([to_square(p, 32) for p in pictures()]), clip.mean, clip.std)
    with torch.no_grad():
        seen = parts.net.understand(pixels)
        features = clip.model.encode_image(pixels)
    for name, expected in {
        "clip_feature": features,
        "cls_feature": seen.features.cls,
        "patch_feature": seen.features.patches.mean(dim=1),
        "scene_feature": seen.features.scene,
        "object_feature": seen.features.object,
        "logits": seen.logits,
    }.items():
        np.testing.assert_allclose(out[name], expected.detach().numpy(), atol=2e-5)
    assert out["scene"] is data["scene"]


def test_extractor_without_a_net_gives_clip_features_only(clip) -> None:
    out = FeatureExtractor(clip)(batch([png(pictures()[0])]))
    assert set(out) == {"image_id", "emotion", "clip_feature"}
    assert out["clip_feature"].shape == (1, 12)


def test_the_net_sees_pictures_as_its_own_preprocessing_shows_them(clip, parts) -> None:
    half = clip.preprocess("half")
    extractor = FeatureExtractor(clip, net=parts.net, preprocess=half, with_frozen=False)
    out = extractor(batch([png(p) for p in pictures()]))
    with torch.no_grad():
        seen = parts.net.understand(half.pixels([half.square(p) for p in pictures()]))
    np.testing.assert_allclose(out["cls_feature"], seen.features.cls.numpy(), atol=2e-5)
    with pytest.raises(ValueError, match="extract its features by themselves"):
        FeatureExtractor(clip, net=parts.net, preprocess=half)


def test_extractor_raises_for_damaged_canonical_images(clip) -> None:
    with pytest.raises(ImageError, match="corrupt"):
        FeatureExtractor(clip)(batch([b"broken"]))
