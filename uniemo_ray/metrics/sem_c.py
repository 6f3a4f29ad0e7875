"""Sem-C: how clearly a generated image shows some scene or object."""

# M images

from dataclasses import dataclass
from math import sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from uniemo_ray.statistics.moments import Moments

Judge = Literal["sem_c", "sem_c_clip"]


@dataclass(frozen=True)
class SemC:
    """Mean of the larger of the two top probabilities."""

    name: Judge
    """`sem_c` for Places365 and ImageNet ResNet-50 (published protocol), `sem_c_clip` for heads on CLIP."""
    mean: float
    standard_error: float
    count: int


def clarity(scene_probability: ArrayLike, object_probability: ArrayLike) -> Moments:
    """The larger of the top scene and the top object probability, both (M,); moments of several parts merge.

    Raises:
        ValueError: for unequal lengths or a value outside [0, 1].
    """
    scene = np.asarray(scene_probability, dtype=np.float64)
    object_ = np.asarray(object_probability, dtype=np.float64)
    if scene.ndim != 1 or scene.shape != object_.shape:
        raise ValueError(f"expected two equally long vectors, got {scene.shape} and {object_.shape}")
    best = np.maximum(scene, object_)
    if not ((best >= 0) & (best <= 1)).all():
        raise ValueError(f"expected probabilities in [0, 1], got {best.min()} to {best.max()}")
    return Moments.of(best[:, None])


def sem_c(moments: Moments, *, name: Judge) -> SemC:
    """Sem-C from `clarity`.

    Raises:
        ValueError: for no image.
    """
    if not moments.count:
        raise ValueError(f"{name} of no image")
    error = float(moments.std()[0]) / sqrt(max(moments.count - 1, 1))
    return SemC(name, float(moments.mean[0]), error, moments.count)
