"""Accuracy of emotion probabilities: top-1, top-2, two classes, per class and confusion."""

# B batch, C emotions

from dataclasses import dataclass, field
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uniemo_ray.emotions import EMOTIONS, valence

IS_POSITIVE = np.array([valence(emotion) == "positive" for emotion in EMOTIONS])


@dataclass(frozen=True)
class Accuracy:
    """Shares in [0, 1] over `count` images."""

    top1: float
    standard_error: float
    """Of `top1`, binomial."""
    top2: float
    """Share whose label is among the two likeliest emotions."""
    two_class: float
    """Share whose likeliest emotion has the label's valence."""
    mean_probability: float
    """Mean probability of the label."""
    per_class: dict[str, float]
    """Top-1 of each emotion that has an image."""
    confusion: tuple[tuple[int, ...], ...]
    """(C, C) counts, rows are labels, columns predictions, both in EMOTIONS order."""
    count: int


@dataclass
class AccuracyCounts:
    """Accumulates accuracy; parts over any split of the images merge in any order."""

    confusion: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros((len(EMOTIONS),) * 2, dtype=np.int64)
    )
    top2: int = 0
    probability: float = 0.0

    def update(self, labels: ArrayLike, probabilities: ArrayLike) -> None:
        """Add a batch, in place. Of equally likely emotions the first in EMOTIONS order wins.

        Args:
            labels: (B,) indices into EMOTIONS.
            probabilities: (B, C).

        Raises:
            ValueError: for other shapes, an unknown label or a probability that is not finite.
        """
        label, p = np.asarray(labels, dtype=np.int64), np.asarray(probabilities, dtype=np.float64)
        if p.shape != (len(label), len(EMOTIONS)):
            raise ValueError(f"expected probabilities ({len(label)}, {len(EMOTIONS)}), got {p.shape}")
        if ((label < 0) | (label >= len(EMOTIONS))).any() or not np.isfinite(p).all():
            raise ValueError(f"expected labels in [0, {len(EMOTIONS)}) and finite probabilities, got others")
        order = np.argsort(-p, axis=1, kind="stable")
        np.add.at(self.confusion, (label, order[:, 0]), 1)
        self.top2 += int((order[:, :2] == label[:, None]).sum())
        self.probability += float(p[np.arange(len(label)), label].sum())

    def merge(self, other: "AccuracyCounts") -> "AccuracyCounts":
        """Counts over the images of both, as a new object."""
        return AccuracyCounts(
            self.confusion + other.confusion, self.top2 + other.top2, self.probability + other.probability
        )

    def result(self) -> Accuracy:
        """Shares over everything that was added.

        Raises:
            ValueError: when nothing was.
        """
        count = int(self.confusion.sum())
        if not count:
            raise ValueError("accuracy of no image: the split is empty")
        top1 = float(np.trace(self.confusion)) / count
        same = IS_POSITIVE[:, None] == IS_POSITIVE[None, :]
        sizes = self.confusion.sum(axis=1)
        per_class = {e: float(self.confusion[i, i] / sizes[i]) for i, e in enumerate(EMOTIONS) if sizes[i]}
        return Accuracy(
            top1=top1,
            standard_error=sqrt(top1 * (1 - top1) / count),
            top2=self.top2 / count,
            two_class=float(self.confusion[same].sum()) / count,
            mean_probability=self.probability / count,
            per_class=per_class,
            confusion=tuple(tuple(int(n) for n in row) for row in self.confusion),
            count=count,
        )
