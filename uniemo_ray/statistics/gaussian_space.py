"""The paper's emotion space (section 4): a diagonal Gaussian of the expert features for each emotion."""

# B batch, C emotions, D width

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.statistics.emotion_space import (
    MEMBERS,
    Draw,
    SpaceFile,
    draw_normal,
    drawable_row,
    members_in,
    row_of,
    write_space_file,
)
from uniemo_ray.statistics.moments import Moments


@dataclass(frozen=True, eq=False)
class GaussianSpace:
    """Mean and standard deviation of each member for each emotion."""

    mean: dict[str, NDArray[np.float64]]
    """Member to (C, D), rows in the order of `labels`."""
    std: dict[str, NDArray[np.float64]]
    """Member to (C, D); population standard deviation."""
    counts: NDArray[np.int64]
    """(C,) images behind each emotion."""
    labels: tuple[str, ...] = EMOTIONS
    """The C emotions."""

    @staticmethod
    def empty(members: Iterable[str], width: int, labels: Sequence[str] = EMOTIONS) -> "GaussianSpace":
        """A space of no image: no emotion can be drawn from it, and that is what it says."""
        nothing = dict.fromkeys(members, np.zeros((len(labels), width)))
        return GaussianSpace(nothing, nothing, np.zeros(len(labels), np.int64), tuple(labels))

    @property
    def members(self) -> tuple[str, ...]:
        """Those of MEMBERS that can be drawn."""
        return members_in(self.mean)

    def sample(self, emotion: str, generator: torch.Generator) -> Draw:
        """Draw one vector of each member, independently of the others.

        Raises:
            ValueError: for an unknown emotion, or a space that was built without an image of it.
        """
        row = drawable_row(self, emotion)
        return Draw({m: draw_normal(self.mean[m][row], self.std[m][row], generator) for m in self.members})

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, atomically."""
        tensors = {f"mean.{m}": v for m, v in self.mean.items()} | {
            f"std.{m}": v for m, v in self.std.items()
        }
        write_space_file(path, {**tensors, "counts": self.counts}, labels=self.labels)

    @staticmethod
    def read(file: SpaceFile, labels: Sequence[str]) -> "GaussianSpace":
        """What `save` wrote."""
        counts = file.tensors["counts"].astype(np.int64)
        return GaussianSpace(file.of("mean"), file.of("std"), counts, tuple(labels))


@dataclass
class GaussianSums:
    """Accumulates an emotion space; parts over any split of the images merge in any order."""

    moments: dict[tuple[str, int], Moments] = field(default_factory=dict)
    """By (member, emotion index)."""
    labels: tuple[str, ...] = EMOTIONS
    """The C emotions."""

    def update(self, emotions: Sequence[int] | NDArray[np.int64], features: Mapping[str, ArrayLike]) -> None:
        """Add a batch of training images, in place.

        Args:
            emotions: (B,) indices into `labels`.
            features: member (`scene`, `object`, `cls`) to (B, D).

        Raises:
            ValueError: for an unknown member or emotion, or a batch of another length.
        """
        rows_of = np.asarray(emotions, dtype=np.int64)
        if unknown := sorted(set(features) - set(MEMBERS)):
            raise ValueError(f"unknown members {unknown}: expected some of {', '.join(MEMBERS)}")
        if ((rows_of < 0) | (rows_of >= len(self.labels))).any():
            raise ValueError(
                f"expected emotion indices below {len(self.labels)}, got {rows_of.min()} to {rows_of.max()}"
            )
        for member, rows in features.items():
            batch = np.asarray(rows)
            if len(batch) != len(rows_of):
                raise ValueError(f"expected {len(rows_of)} {member} features, got {len(batch)}")
            for emotion in np.unique(rows_of):
                self._add((member, int(emotion)), Moments.of(batch[rows_of == emotion]))

    def _add(self, key: tuple[str, int], part: Moments) -> None:
        self.moments[key] = self.moments[key].merge(part) if key in self.moments else part

    def merge(self, other: "GaussianSums") -> "GaussianSums":
        """Moments over the images of both, as a new object."""
        merged = GaussianSums(dict(self.moments), self.labels)
        for key, part in other.moments.items():
            merged._add(key, part)
        return merged

    def result(self, *, emotions: Sequence[str] | None = None) -> GaussianSpace:
        """The space, in which each of `emotions` (by default all) must have an image.

        Raises:
            ValueError: naming the emotions without an image.
        """
        counts = np.array([self._count(row) for row in range(len(self.labels))], dtype=np.int64)
        wanted = self.labels if emotions is None else emotions
        if missing := [name for name in wanted if not counts[row_of(name, self.labels)]]:
            raise ValueError(
                f"no training image of {', '.join(missing)}: add some, or ask for fewer emotions"
            )
        mean, std = {}, {}
        for member in sorted({member for member, _ in self.moments}):
            rows = self._rows(member)
            mean[member] = np.stack([row.mean for row in rows])
            std[member] = np.stack([row.std() for row in rows])
        return GaussianSpace(mean, std, counts, self.labels)

    def _count(self, row: int) -> int:
        return max((part.count for (_, emotion), part in self.moments.items() if emotion == row), default=0)

    def _rows(self, member: str) -> list[Moments]:
        width = next(len(part.mean) for (name, _), part in self.moments.items() if name == member)
        return [self.moments.get((member, row), Moments.empty(width)) for row in range(len(self.labels))]
