"""An emotion space of components: several diagonal Gaussians for each emotion, joint over the members."""

# C emotions, D width, K components

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from uniemo_ray.statistics.emotion_space import (
    KIND,
    MEMBERS,
    Draw,
    SpaceFile,
    drawable_row,
    write_space_file,
)
from uniemo_ray.statistics.mixture_fit import Centres, shrunk_variance
from uniemo_ray.statistics.moments import Moments

MIXTURE = "mixture"


@dataclass(frozen=True, eq=False)
class MixtureSpace:
    """Components of each emotion. A draw takes all members from one component."""

    mean: dict[str, NDArray[np.float64]]
    """Member to (C, K, D)."""
    std: dict[str, NDArray[np.float64]]
    """Member to (C, K, D)."""
    weight: NDArray[np.float64]
    """(C, K) shares of an emotion's images; 0 beyond its own number of components."""
    counts: NDArray[np.int64]
    """(C,) training images behind each emotion."""
    labels: tuple[str, ...]
    """The C emotions."""

    @property
    def members(self) -> tuple[str, ...]:
        """Those of MEMBERS that can be drawn."""
        return tuple(member for member in MEMBERS if member in self.mean)

    def sample(self, emotion: str, generator: torch.Generator) -> Draw:
        """Choose a component of the emotion and draw each member from it.

        Raises:
            ValueError: for an unknown emotion, or a space that was built without an image of it.
        """
        row = drawable_row(self, emotion)
        weight = self.weight[row]
        level = float(torch.rand(1, generator=generator, dtype=torch.float64))
        used = int((weight > 0).sum())
        component = min(int(np.searchsorted(np.cumsum(weight), level, side="right")), used - 1)
        features = {}
        for member in self.members:
            mean = torch.from_numpy(self.mean[member][row, component])
            std = torch.from_numpy(self.std[member][row, component])
            features[member] = (mean + std * torch.randn(len(mean), generator=generator)).float()
        return Draw(features, f"component {component + 1} of {used}")

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, atomically."""
        tensors: dict[str, NDArray[np.generic]] = {f"mean.{m}": v for m, v in self.mean.items()}
        tensors |= {f"std.{m}": v for m, v in self.std.items()}
        tensors |= {"weight": self.weight, "counts": self.counts}
        write_space_file(path, tensors, labels=self.labels, metadata={KIND: MIXTURE})

    @staticmethod
    def read(file: SpaceFile, labels: Sequence[str]) -> "MixtureSpace":
        """What `save` wrote."""
        counts = file.tensors["counts"].astype(np.int64)
        return MixtureSpace(file.of("mean"), file.of("std"), file.tensors["weight"], counts, tuple(labels))


@dataclass
class MixtureSums:
    """Accumulates the components of given centres; parts over any split of the images merge in any order."""

    centres: Centres
    moments: dict[tuple[str, int, int], Moments] = field(default_factory=dict)
    """By (member, emotion index, component)."""

    def update(self, emotions: Sequence[int] | NDArray[np.int64], features: Mapping[str, ArrayLike]) -> None:
        """Add a batch of training images, in place.

        Args:
            emotions: (B,) indices of emotions.
            features: member to (B, D).
        """
        rows_of = np.asarray(emotions, dtype=np.int64)
        batch = {member: np.asarray(rows, dtype=np.float64) for member, rows in features.items()}
        for emotion in np.unique(rows_of):
            own = {member: rows[rows_of == emotion] for member, rows in batch.items()}
            component_of = self.centres.nearest(int(emotion), own)
            for component in np.unique(component_of):
                for member, rows in own.items():
                    key = (member, int(emotion), int(component))
                    self._add(key, Moments.of(rows[component_of == component]))

    def _add(self, key: tuple[str, int, int], part: Moments) -> None:
        self.moments[key] = self.moments[key].merge(part) if key in self.moments else part

    def merge(self, other: "MixtureSums") -> "MixtureSums":
        """Moments over the images of both, as a new object."""
        merged = MixtureSums(self.centres, dict(self.moments))
        for key, part in other.moments.items():
            merged._add(key, part)
        return merged

    def result(self) -> MixtureSpace:
        """The space. Components of an emotion are ordered by their share, the largest first."""
        gaussian = self.centres.gaussian
        most = max(len(centres) for centres in self.centres.centres.values())
        shape = (len(gaussian.labels), most)
        weight = np.zeros(shape)
        mean = {m: np.zeros((*shape, gaussian.mean[m].shape[1])) for m in gaussian.members}
        std = {m: np.zeros_like(rows) for m, rows in mean.items()}
        for emotion, centres in self.centres.centres.items():
            counts = [self._count(emotion, component) for component in range(len(centres))]
            order = sorted(range(len(centres)), key=lambda component: (-counts[component], component))
            for place, component in enumerate(order):
                weight[emotion, place] = counts[component] / sum(counts)
                for member in gaussian.members:
                    part = self.moments.get((member, emotion, component))
                    if part is not None:
                        whole = np.square(gaussian.std[member][emotion])
                        mean[member][emotion, place] = part.mean
                        std[member][emotion, place] = np.sqrt(shrunk_variance(part.m2, part.count, whole))
        return MixtureSpace(mean, std, weight, gaussian.counts, gaussian.labels)

    def _count(self, emotion: int, component: int) -> int:
        member = self.centres.gaussian.members[0]
        part = self.moments.get((member, emotion, component))
        return part.count if part else 0
