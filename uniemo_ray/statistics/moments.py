"""Streaming mean and variance per dimension, in float64; `combine` is the merging step of all such sums."""

# B batch, D width

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


class Combined(NamedTuple):
    """Number and mean of the rows of two parts, and what their distance adds to their squared deviations."""

    total: int
    """Rows of both parts."""
    mean: Array
    """(D,) mean over both parts."""
    delta: Array
    """(D,) distance between the means of the parts."""
    weight: float
    """n1 n2 / n: the deviations of both parts grow by `weight` times the (outer) product of `delta`."""


def combine(count: int, mean: Array, other_count: int, other_mean: Array) -> Combined:
    """The pairwise update of Chan, Golub and LeVeque (1979).

    Raises:
        ValueError: when the widths differ.
    """
    if mean.shape != other_mean.shape:
        raise ValueError(f"expected features of width {len(mean)}, got {len(other_mean)}")
    total, delta = count + other_count, other_mean - mean
    divisor = max(total, 1)  # two empty parts have zeros everywhere
    return Combined(total, mean + delta * (other_count / divisor), delta, count * other_count / divisor)


@dataclass
class Moments:
    """Count, mean and summed squared deviation of D numbers; parts merge in any order."""

    count: int
    mean: Array
    """(D,)."""
    m2: Array
    """(D,) sum of squared deviations from the mean."""

    @staticmethod
    def empty(width: int) -> "Moments":
        """Nothing seen yet."""
        return Moments(0, np.zeros(width), np.zeros(width))

    @staticmethod
    def of(rows: ArrayLike) -> "Moments":
        """Moments of a batch (B, D).

        Raises:
            ValueError: for another shape or a value that is not finite.
        """
        batch = np.asarray(rows, dtype=np.float64)
        if batch.ndim != 2:
            raise ValueError(f"expected a batch (B, D), got shape {batch.shape}")
        if not np.isfinite(batch).all():
            raise ValueError("a feature is not finite: check the model that computed it")
        if not len(batch):
            return Moments.empty(batch.shape[1])
        mean = batch.mean(axis=0)
        return Moments(len(batch), mean, np.square(batch - mean).sum(axis=0))

    def update(self, rows: ArrayLike) -> None:
        """Add a batch (B, D), in place."""
        merged = self.merge(Moments.of(rows))
        self.count, self.mean, self.m2 = merged.count, merged.mean, merged.m2

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both parts, as a new object.

        Raises:
            ValueError: when the widths differ.
        """
        both = combine(self.count, self.mean, other.count, other.mean)
        m2 = self.m2 + other.m2 + np.square(both.delta) * both.weight
        return Moments(both.total, both.mean, m2)

    def std(self) -> Array:
        """(D,) population standard deviation; zeros when nothing was seen."""
        return np.asarray(np.sqrt(self.m2 / max(self.count, 1)), dtype=np.float64)
