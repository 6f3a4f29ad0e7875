"""Fréchet distance between two sets of features, from means and covariances that merge."""

# B batch, D width

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uniemo_ray.statistics.moments import combine

Array = NDArray[np.float64]
Protocol = Literal["fid", "fid_small", "fid_train", "fd_clip"]
GATHERED = 4096
"""Rows that are summed at a time."""


@dataclass
class FeatureSums:
    """Count, mean and scatter matrix of features; parts merge in any order."""

    count: int
    mean: Array
    """(D,)."""
    scatter: Array
    """(D, D) sum of outer products of deviations from the mean."""

    @staticmethod
    def empty(width: int) -> "FeatureSums":
        """Nothing seen yet."""
        return FeatureSums(0, np.zeros(width), np.zeros((width, width)))

    @staticmethod
    def of(rows: ArrayLike) -> "FeatureSums":
        """Sums of a batch (B, D).

        Raises:
            ValueError: for another shape or a value that is not finite.
        """
        batch = np.asarray(rows, dtype=np.float64)
        if batch.ndim != 2 or not np.isfinite(batch).all():
            raise ValueError(
                f"expected finite features (B, D), got shape {batch.shape} or a non-finite value"
            )
        if not len(batch):
            return FeatureSums.empty(batch.shape[1])
        mean = batch.mean(axis=0)
        return FeatureSums(len(batch), mean, (batch - mean).T @ (batch - mean))

    def update(self, rows: ArrayLike) -> None:
        """Add a batch (B, D), in place."""
        merged = self.merge(FeatureSums.of(rows))
        self.count, self.mean, self.scatter = merged.count, merged.mean, merged.scatter

    def merge(self, other: "FeatureSums") -> "FeatureSums":
        """Sums over both parts, as a new object.

        Raises:
            ValueError: when the widths differ.
        """
        both = combine(self.count, self.mean, other.count, other.mean)
        between = np.outer(both.delta, both.delta) * both.weight
        return FeatureSums(both.total, both.mean, self.scatter + other.scatter + between)

    def covariance(self) -> Array:
        """(D, D) sample covariance.

        Raises:
            ValueError: with fewer than two images.
        """
        if self.count < 2:
            raise ValueError(f"a Fréchet distance needs two images on each side, got {self.count}")
        return self.scatter / (self.count - 1)


class SumsByEmotion:
    """`FeatureSums` of each emotion, of rows that come shard by shard.

    Rows are gathered first: a merge costs as much as hundreds of rows, because sums have (D, D) numbers.
    """

    def __init__(self, *, gathered: int | None = None) -> None:
        """Nothing seen yet; at most about `gathered` rows are held."""
        self._gathered = GATHERED if gathered is None else gathered
        self._sums: dict[str, FeatureSums] = {}
        self._parts: list[tuple[NDArray[np.float32], NDArray[np.str_]]] = []

    def add(self, features: NDArray[np.float32], emotions: Sequence[str]) -> None:
        """Rows (B, D) and their B emotions."""
        if len(features):
            self._parts.append((features, np.asarray(emotions)))
        if sum(len(part) for part, _ in self._parts) >= self._gathered:
            self._sum()

    def result(self) -> dict[str, FeatureSums]:
        """Sums by emotion, sorted by its name."""
        self._sum()
        return dict(sorted(self._sums.items()))

    def _sum(self) -> None:
        if not self._parts:
            return
        features, labels = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        self._parts = []
        for label in np.unique(labels):
            add_sums(self._sums, {str(label): FeatureSums.of(features[labels == label])})


def add_sums(total: dict[str, FeatureSums], part: Mapping[str, FeatureSums]) -> dict[str, FeatureSums]:
    """Add the sums of other images, emotion by emotion, in place; returns `total`."""
    for emotion, sums in part.items():
        total[emotion] = total[emotion].merge(sums) if emotion in total else sums
    return total


@dataclass(frozen=True)
class Frechet:
    """A distance and what it was measured on: it shrinks with more images, so compare equal counts."""

    name: Protocol
    """`fid`, `fid_small` and `fid_train` on Inception-v3 pool3 features, `fd_clip` on CLIP image features."""
    distance: float
    generated: int
    """Images on one side."""
    real: int
    """Images on the other."""


def frechet(generated: FeatureSums, real: FeatureSums, *, name: Protocol) -> Frechet:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) between two Gaussian fits.

    Raises:
        ValueError: with fewer than two images on a side, or unequal widths.
    """
    if generated.mean.shape != real.mean.shape:
        raise ValueError(f"expected features of width {len(real.mean)}, got {len(generated.mean)}")
    first, second = generated.covariance(), real.covariance()
    root = _square_root(first)
    # tr (C1 C2)^(1/2) = tr (C1^(1/2) C2 C1^(1/2))^(1/2), and the latter is symmetric.
    cross = np.linalg.eigvalsh(_symmetric(root @ second @ root))
    trace = np.trace(first) + np.trace(second) - 2 * np.sqrt(np.clip(cross, 0, None)).sum()
    distance = float(np.square(generated.mean - real.mean).sum() + trace)
    return Frechet(name, max(distance, 0.0), generated.count, real.count)


def frechet_by_emotion(
    generated: Mapping[str, FeatureSums], real: Mapping[str, FeatureSums], *, name: Protocol
) -> dict[str, Frechet]:
    """The distance within each emotion that both sides have, in the order of `generated`."""
    return {e: frechet(generated[e], real[e], name=name) for e in generated if e in real}


def _square_root(matrix: Array) -> Array:
    values, vectors = np.linalg.eigh(_symmetric(matrix))
    return np.asarray((vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T, dtype=np.float64)


def _symmetric(matrix: Array) -> Array:
    return (matrix + matrix.T) / 2
