"""Adding up the components of a mixture over all training images."""

# B batch, D width

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uniemo_ray.statistics.mixture_fit import Centres, shrunk_variance
from uniemo_ray.statistics.mixture_space import MixtureSpace
from uniemo_ray.statistics.moments import Moments


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
