"""What a recogniser sees on the images of a set: how varied it is, and whether it is what was asked for.

Counts merge, so that the images are never together in memory.
"""

# M images, C emotions, S scenes, O objects

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
Kind = Literal["scenes", "objects"]


@dataclass
class Followed:
    """Images whose condition names an attribute, and those on which it is seen."""

    named: int = 0
    seen: int = 0

    @property
    def share(self) -> float | None:
        """Share of the named ones that are seen; None where nothing was named."""
        return self.seen / self.named if self.named else None

    def merge(self, other: "Followed") -> "Followed":
        """Both together, as a new object."""
        return Followed(self.named + other.named, self.seen + other.seen)


@dataclass
class Seen:
    """Counts over the images of a set."""

    scenes: dict[str, Ints] = field(default_factory=dict)
    """Emotion to (S,) images of each scene."""
    objects: dict[str, Ints] = field(default_factory=dict)
    """Emotion to (O,) images of each object."""
    scene: Followed = field(default_factory=Followed)
    object: Followed = field(default_factory=Followed)

    def merge(self, other: "Seen") -> "Seen":
        """Counts over the images of both, as a new object."""
        return Seen(
            _added(self.scenes, other.scenes),
            _added(self.objects, other.objects),
            self.scene.merge(other.scene),
            self.object.merge(other.object),
        )

    def effective(self, kind: Kind) -> dict[str, float]:
        """Emotion to its effective number of scenes or objects."""
        counts = self.scenes if kind == "scenes" else self.objects
        return {emotion: effective_number(row) for emotion, row in counts.items()}


def count_seen(
    emotions: Sequence[str],
    scenes: ArrayLike,
    objects: ArrayLike,
    *,
    scene_names: Sequence[str],
    object_names: Sequence[str],
    named_scenes: Sequence[str | None] = (),
    named_objects: Sequence[str | None] = (),
) -> Seen:
    """Counts of M images.

    Args:
        emotions: M names, intended or labelled.
        scenes: (M,) recognised scenes, indices into `scene_names`.
        objects: (M,) recognised objects, indices into `object_names`.
        scene_names: S names.
        object_names: O names.
        named_scenes: what the condition of each image names; none for images that have no condition.
        named_objects: the same of objects. A name that the recogniser does not know counts as not seen.
    """
    return Seen(
        _by_emotion(emotions, scenes, kinds=len(scene_names)),
        _by_emotion(emotions, objects, kinds=len(object_names)),
        _followed(named_scenes, scenes, scene_names),
        _followed(named_objects, objects, object_names),
    )


def _by_emotion(emotions: Sequence[str], indices: ArrayLike, *, kinds: int) -> dict[str, Ints]:
    rows, labels = np.asarray(indices, dtype=np.int64), np.asarray(emotions, dtype=object)
    return {name: np.bincount(rows[labels == name], minlength=kinds) for name in sorted(set(emotions))}


def _followed(named: Sequence[str | None], indices: ArrayLike, names: Sequence[str]) -> Followed:
    rows = np.asarray(indices, dtype=np.int64)
    asked = [(name, names[row]) for name, row in zip(named, rows, strict=bool(named)) if name is not None]
    return Followed(len(asked), sum(name == there for name, there in asked))


def effective_number(counts: ArrayLike) -> float:
    """Exp of the entropy of counts: how many equally frequent kinds would be as varied (Hill, 1973).

    Few images cannot show many kinds, so compare equal numbers of images.

    Raises:
        ValueError: for counts that are all zero.
    """
    numbers = np.asarray(counts, dtype=np.float64)
    if not numbers.sum():
        raise ValueError("effective number of nothing: no image was counted")
    shares = numbers[numbers > 0] / numbers.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _added(mine: dict[str, Ints], theirs: dict[str, Ints]) -> dict[str, Ints]:
    both = dict(mine)
    for emotion, row in theirs.items():
        both[emotion] = both[emotion] + row if emotion in both else row
    return dict(sorted(both.items()))
