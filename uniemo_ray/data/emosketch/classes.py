"""EmoSketch in other classes than the eight emotions of its rule, and what then follows exactly.

A class stands for one or several emotions. It is drawn uniformly, then a scene and an object from the mean of
its emotions' distributions. So scene and object are not independent given a class, as they are given an
emotion: everything follows from their joint distribution.
"""

# C classes, S scenes, O objects

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np

from uniemo_ray.data.emosketch.labels import Label, draw_label
from uniemo_ray.data.emosketch.rule import Array, Ceiling, load_rule
from uniemo_ray.emotions import EMOTIONS, MIKELS, SENTIMENT, LabelSpace

Classes = tuple[tuple[str, tuple[str, ...]], ...]
"""Each class with its emotions; empty for the eight emotions themselves."""
_EKMAN = {
    "joy": ("amusement", "contentment", "excitement"),
    "surprise": ("awe",),
}
"""Emotions of Ekman's that are none of Mikels'."""


class ExactRule(Protocol):
    """What is known exactly of an EmoSketch."""

    @property
    def scenes(self) -> tuple[str, ...]:
        """S names."""

    @property
    def objects(self) -> tuple[str, ...]:
        """O names."""

    def posterior(self, scene: int, object_: int) -> Array:
        """P(class | scene, object), shape (C,)."""

    def ceiling(self) -> Ceiling:
        """Accuracy of the Bayes judge."""

    def alpha(self) -> dict[tuple[str, str], Array]:
        """Exact coefficients (eq. 5), by (kind, name); each of shape (C,)."""


@dataclass(frozen=True, eq=False)
class JointRule:
    """P(scene, object, class), with the names of its axes."""

    scenes: tuple[str, ...]
    objects: tuple[str, ...]
    labels: tuple[str, ...]
    table: Array
    """(S, O, C), sums to 1."""

    def posterior(self, scene: int, object_: int) -> Array:
        """P(class | scene, object), shape (C,)."""
        row = self.table[scene, object_]
        return np.asarray(row / row.sum(), dtype=np.float64)

    def ceiling(self) -> Ceiling:
        """Accuracy of the Bayes judge: the mass of the likeliest class, summed over what is seen."""
        return Ceiling(
            scene=float(self.table.sum(axis=1).max(axis=1).sum()),
            object=float(self.table.sum(axis=0).max(axis=1).sum()),
            both=float(self.table.max(axis=2).sum()),
        )

    def alpha(self) -> dict[tuple[str, str], Array]:
        """Exact coefficients (eq. 5) of a perfect judge, by (kind, name): P(class | attribute)."""
        by_scene, by_object = self.table.sum(axis=1), self.table.sum(axis=0)
        found = {("scene", n): by_scene[i] / by_scene[i].sum() for i, n in enumerate(self.scenes)}
        return found | {("object", n): by_object[i] / by_object[i].sum() for i, n in enumerate(self.objects)}

    def merged(self, labels: Sequence[str], parts: Mapping[str, Sequence[str]]) -> "JointRule":
        """The rule where several classes are one; a class of no part is as if it had never been drawn."""
        columns = [[self.labels.index(name) for name in parts[label]] for label in labels]
        table = np.stack([self.table[:, :, chosen].sum(axis=2) for chosen in columns], axis=2)
        return JointRule(self.scenes, self.objects, tuple(labels), table / table.sum())

    def draw(self, rng: np.random.Generator) -> Label:
        """Draw a class uniformly, then scene and object together given the class."""
        label = int(rng.integers(len(self.labels)))
        edges = np.cumsum(self.table[:, :, label])
        cell = int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))
        scene, object_ = divmod(cell, len(self.objects))
        return Label(self.labels[label], self.scenes[scene], self.objects[object_])


def classes_of(space: LabelSpace, own: Mapping[str, Sequence[str]]) -> Classes:
    """What each class of a label space stands for.

    Args:
        space: the classes.
        own: emotions of each label that a user has named; empty for a known label space.

    Raises:
        KeyError: a label of a user's own that is not in `own`.
    """
    if own:
        return tuple((label, tuple(own[label])) for label in space.labels)
    if space == MIKELS:
        return ()
    if space == SENTIMENT:
        return tuple(
            (side, tuple(name for name in EMOTIONS if MIKELS.valence(name) == side)) for side in space.labels
        )
    known = {name: (name,) for name in EMOTIONS} | _EKMAN
    return tuple((label, known[label]) for label in space.labels)


@cache
def rule_of(classes: Classes) -> JointRule:
    """The rule of some classes, each as frequent as any other; none are the eight emotions."""
    base = load_rule()
    classes = classes or tuple((emotion, (emotion,)) for emotion in EMOTIONS)
    rows = [[EMOTIONS.index(emotion) for emotion in emotions] for _, emotions in classes]
    given_emotion = len(EMOTIONS) * base.joint()  # (S, O, 8)
    table = np.stack([given_emotion[:, :, chosen].mean(axis=2) for chosen in rows], axis=2) / len(classes)
    return JointRule(base.scenes, base.objects, tuple(label for label, _ in classes), table)


def draw_class(rng: np.random.Generator, classes: Classes) -> Label:
    """What is drawn before a picture is made, in these classes."""
    return rule_of(classes).draw(rng) if classes else draw_label(rng)
