"""Accuracy of emotion probabilities: top-1, top-2, two classes, per class and confusion."""

# B batch, C emotions

from dataclasses import dataclass, field
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uniemo_ray.emotions import MIKELS, SENTIMENT, LabelSpace


@dataclass(frozen=True)
class Accuracy:
    """Shares in [0, 1] over `count` images."""

    top1: float
    standard_error: float
    """Binomial standard error of `top1`."""
    top2: float
    """Share whose label is among the two likeliest emotions; says nothing of a set with two classes."""
    two_class: float | None
    """Share whose likeliest emotion has the label's valence, of the images whose label has one; not defined
    (None) where the label space cannot tell positive from negative."""
    two_class_sum: float | None
    """Share whose more probable valence, summed over its emotions, is the label's, of the same images; not
    defined where `two_class` is not."""
    mean_probability: float
    """Mean probability of the label."""
    per_class: dict[str, float]
    """Top-1 of each emotion that has an image."""
    confusion: tuple[tuple[int, ...], ...]
    """(C, C) counts, rows are labels, columns predictions, both in the order of the label space."""
    count: int


@dataclass
class AccuracyCounts:
    """Accumulates accuracy; parts over any split of the images merge in any order."""

    space: LabelSpace = MIKELS
    confusion: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64))
    top2: int = 0
    valence_sum: int = 0
    probability: float = 0.0

    def __post_init__(self) -> None:
        """Start with an empty confusion matrix of the space's size."""
        if not self.confusion.size:
            self.confusion = np.zeros((len(self.space.labels),) * 2, dtype=np.int64)

    def update(self, labels: ArrayLike, probabilities: ArrayLike) -> None:
        """Add a batch, in place.

        Of equally likely emotions the first of the label space wins, of equally likely valences positive.

        Args:
            labels: (B,) indices into the labels of the space.
            probabilities: (B, C).

        Raises:
            ValueError: for other shapes, an unknown label or a probability that is not finite.
        """
        label, p = np.asarray(labels, dtype=np.int64), np.asarray(probabilities, dtype=np.float64)
        size = len(self.space.labels)
        if p.shape != (len(label), size):
            raise ValueError(f"expected probabilities ({len(label)}, {size}), got {p.shape}")
        if ((label < 0) | (label >= size)).any() or not np.isfinite(p).all():
            raise ValueError(f"expected labels in [0, {size}) and finite probabilities, got others")
        order = np.argsort(-p, axis=1, kind="stable")
        np.add.at(self.confusion, (label, order[:, 0]), 1)
        self.top2 += int((order[:, :2] == label[:, None]).sum())
        sides = self._sides()
        seen = np.where(p[:, sides > 0].sum(axis=1) >= p[:, sides < 0].sum(axis=1), 1, -1)
        self.valence_sum += int((seen == sides[label]).sum())
        self.probability += float(p[np.arange(len(label)), label].sum())

    def merge(self, other: "AccuracyCounts") -> "AccuracyCounts":
        """Counts over the images of both, as a new object."""
        return AccuracyCounts(
            self.space,
            self.confusion + other.confusion,
            self.top2 + other.top2,
            self.valence_sum + other.valence_sum,
            self.probability + other.probability,
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
        sides, sizes = self._sides(), self.confusion.sum(axis=1)
        same = (sides[:, None] == sides[None, :]) & (sides[:, None] != 0)
        with_valence = max(1, int(sizes[sides != 0].sum()))
        labels, has_valence = enumerate(self.space.labels), self.space.has_valence
        per_class = {label: float(self.confusion[i, i] / sizes[i]) for i, label in labels if sizes[i]}
        return Accuracy(
            top1=top1,
            standard_error=sqrt(top1 * (1 - top1) / count),
            top2=self.top2 / count,
            two_class=float(self.confusion[same].sum()) / with_valence if has_valence else None,
            two_class_sum=self.valence_sum / with_valence if has_valence else None,
            mean_probability=self.probability / count,
            per_class=per_class,
            confusion=tuple(tuple(int(n) for n in row) for row in self.confusion),
            count=count,
        )

    def _sides(self) -> NDArray[np.int64]:
        """(C,) 1 for positive labels, -1 for negative ones, 0 for those that may be either."""
        names = {"positive": 1, "negative": -1, None: 0}
        return np.array([names[self.space.valence(label)] for label in self.space.labels], dtype=np.int64)


def coarsen(probabilities: ArrayLike, source: LabelSpace, target: LabelSpace) -> NDArray[np.float64]:
    """Probabilities (B, C) of one label space in another: the same, or summed by valence for two classes.

    Raises:
        ValueError: for spaces of which neither is true.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if source == target:
        return p
    rows = [
        [i for i, label in enumerate(source.labels) if source.valence(label) == wanted]
        for wanted in target.labels
    ]
    if target != SENTIMENT or sum(map(len, rows)) < len(source.labels) or not source.has_valence:
        raise ValueError(
            f"answers in the classes {', '.join(source.labels)} say nothing certain about the classes "
            f"{', '.join(target.labels)}: take a model and a set with the same classes, or, where every "
            f"class of the model is known as positive or negative, a set with these two"
        )
    return np.stack([p[:, chosen].sum(axis=1) for chosen in rows], axis=1)
