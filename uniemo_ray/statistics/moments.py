"""Streaming mean and variance per dimension (Chan, Golub and LeVeque 1979), in float64."""

# B batch, D width

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


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
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"expected features of width {len(self.mean)}, got {len(other.mean)}")
        count = self.count + other.count
        if not count:
            return Moments.empty(len(self.mean))
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        m2 = self.m2 + other.m2 + np.square(delta) * (self.count * other.count / count)
        return Moments(count, mean, m2)

    def std(self) -> Array:
        """(D,) population standard deviation; zeros when nothing was seen."""
        return np.asarray(np.sqrt(self.m2 / max(self.count, 1)), dtype=np.float64)
