"""A small set of images with made-up measurements, and what it is measured against."""

import numpy as np

from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.metrics.generation import ImageSet, Yardstick, feature_sums

COUNT, WIDTH = 24, 5
LABELS = [EMOTIONS[i % 3] for i in range(COUNT)]


def image_set(**changes) -> ImageSet:
    rng = np.random.default_rng(0)
    values = {
        "image_ids": [f"i{i}" for i in range(COUNT)],
        "emotions": LABELS,
        "pictures": rng.integers(0, 256, size=(COUNT, 64, 64, 3), dtype=np.uint8).__getitem__,
        "is_generated": True,
        "probabilities": rng.dirichlet(np.ones(8), size=COUNT).astype(np.float32),
        "scene_probability": rng.random(COUNT, dtype=np.float32),
        "object_probability": np.full(COUNT, np.nan, dtype=np.float32),
        "features": rng.normal(size=(COUNT, WIDTH)).astype(np.float32),
    }
    return ImageSet(**{**values, **changes})


def yardstick(**changes) -> Yardstick:
    real = np.random.default_rng(1).normal(size=(COUNT, WIDTH)).astype(np.float32)
    values = {
        "real": feature_sums(real, LABELS),
        "recogniser": None,
        "pairs": 10,
        "seed": 0,
    }
    return Yardstick(**{**values, **changes})
