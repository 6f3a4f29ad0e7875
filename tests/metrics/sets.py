"""A small set of images with made-up measurements, and what it is measured against."""

import numpy as np

from uniemo_ray.distributed.shards.actors.tables import conform
from uniemo_ray.emotions import EMOTIONS, MIKELS
from uniemo_ray.feedback.schema import SCORES
from uniemo_ray.metrics.frechet import FeatureSums, SumsByEmotion
from uniemo_ray.metrics.generation import ImageSet, Sides, Yardstick
from uniemo_ray.metrics.score_sums import Judge, sum_scores

COUNT, WIDTH = 24, 5
LABELS = [EMOTIONS[i % 3] for i in range(COUNT)]


def feature_sums(features: np.ndarray, emotions: list[str]) -> dict[str, FeatureSums]:
    sums = SumsByEmotion()
    sums.add(features, emotions)
    return sums.result()


def real_features(width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(COUNT, width)).astype(np.float32)


def image_set(*, judge: Judge | None = None, sides: tuple[Sides, ...] = (), **changes) -> ImageSet:
    """Of rows: `probabilities`, `scene_probability` and `features` may be changed, and fields of the set."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, size=(COUNT, 64, 64, 3), dtype=np.uint8).__getitem__
    columns = {field.name: np.full(COUNT, None, dtype=object) for field in SCORES} | {
        "image_id": np.array([f"i{i}" for i in range(COUNT)]),
        "emotion": np.array(LABELS),
        "probabilities": rng.dirichlet(np.ones(8), size=COUNT).astype(np.float32),
        "scene_probability": rng.random(COUNT, dtype=np.float32),
        "clip_feature": rng.normal(size=(COUNT, WIDTH)).astype(np.float32),
    }
    columns |= {name: changes.pop(name) for name in list(changes) if name in columns}
    sums = sum_scores([conform(columns, SCORES)], space=MIKELS, judge=judge)
    real = feature_sums(real_features(columns["clip_feature"].shape[1]), LABELS)
    values = {
        "image_ids": columns["image_id"].tolist(),
        "emotions": LABELS,
        "pictures": pictures,
        "features": columns["clip_feature"].__getitem__,
        "is_generated": True,
        "sums": sums,
        "sides": (Sides("fd_clip", sums.features, real), *sides),
    }
    return ImageSet(**{**values, **changes})


def yardstick(**changes) -> Yardstick:
    return Yardstick(**{"recogniser": None, "pairs": 10, "seed": 0, "labels": EMOTIONS, **changes})
