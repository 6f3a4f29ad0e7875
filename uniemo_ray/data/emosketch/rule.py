"""The labelling rule of EmoSketch and everything that follows from it exactly.

An emotion is drawn uniformly, then a scene and an object independently given the emotion, with
probabilities counted in EmoSet-118K (add-one smoothing). So the Bayes posterior is known, and with
it the benchmark's ceiling and the true correlation coefficients (eq. 5).
"""

# C emotions, S scenes, O objects

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from uniemo_ray.emotions import EMOTIONS

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Ceiling:
    """Best possible top-1 accuracies of a judge that sees the scene, the object, or both."""

    scene: float
    object: float
    both: float


@dataclass(frozen=True, eq=False)
class Rule:
    """P(scene | emotion) (S, C) and P(object | emotion) (O, C), with the names of their rows."""

    scenes: tuple[str, ...]
    objects: tuple[str, ...]
    scene_given_emotion: Array
    object_given_emotion: Array

    def posterior(self, scene: int, object_: int) -> Array:
        """P(emotion | scene, object), shape (C,)."""
        joint = self.scene_given_emotion[scene] * self.object_given_emotion[object_]
        return np.asarray(joint / joint.sum(), dtype=np.float64)

    def joint(self) -> Array:
        """P(scene, object, emotion), shape (S, O, C), with P(emotion) = 1 / C."""
        table = self.scene_given_emotion[:, None, :] * self.object_given_emotion[None, :, :]
        return np.asarray(table / len(EMOTIONS), dtype=np.float64)

    def ceiling(self) -> Ceiling:
        """Accuracy of the Bayes judge: the mass of the likeliest emotion, summed over what is seen."""
        joint = self.joint()
        return Ceiling(
            scene=float(joint.sum(axis=1).max(axis=1).sum()),
            object=float(joint.sum(axis=0).max(axis=1).sum()),
            both=float(joint.max(axis=2).sum()),
        )

    def alpha(self) -> dict[tuple[str, str], Array]:
        """Exact coefficients (eq. 5) of a perfect judge, by (kind, name).

        The mean of its posterior over the images that carry the attribute is P(emotion | attribute).
        """
        joint = self.joint()
        by_scene, by_object = joint.sum(axis=1), joint.sum(axis=0)
        table = {("scene", n): by_scene[i] / by_scene[i].sum() for i, n in enumerate(self.scenes)}
        table |= {("object", n): by_object[i] / by_object[i].sum() for i, n in enumerate(self.objects)}
        return table


@cache
def load_rule() -> Rule:
    """The shipped rule: 16 scenes and 24 objects with their EmoSet counts."""
    with (files(__package__) / "counts.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names, tables = {}, {}
    for kind in ("scene", "object"):
        of_kind = [row for row in rows if row["kind"] == kind]
        counts = np.array([[float(row[e]) for e in EMOTIONS] for row in of_kind]) + 1.0
        names[kind] = tuple(row["name"] for row in of_kind)
        tables[kind] = counts / counts.sum(axis=0)
    return Rule(names["scene"], names["object"], tables["scene"], tables["object"])
