"""An emotion space of real images: the features of one of them, moved a little.

What it draws stays near the features of a real training image. Whoever may not show pictures that resemble
those of their data set should not use it.
"""

# C emotions, D width, N images of an emotion

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from uniemo_ray.statistics.emotion_space import (
    KIND,
    Draw,
    SpaceFile,
    draw_normal,
    drawable_row,
    members_in,
    write_space_file,
)
from uniemo_ray.statistics.feature_sample import FeatureSample
from uniemo_ray.statistics.gaussian_space import GaussianSpace

NEIGHBOURS = "neighbours"
_IDS, _JITTER = "ids", "jitter"


@dataclass(frozen=True, eq=False)
class NeighbourSpace:
    """Features of real images of each emotion, drawn together and jittered."""

    features: dict[str, NDArray[np.float16]]
    """Member to (C, N, D); rows beyond an emotion's own images are zeros."""
    ids: tuple[tuple[str, ...], ...]
    """Of each emotion's images, at most N."""
    std: dict[str, NDArray[np.float64]]
    """Member to (C, D); population standard deviation over all training images of the emotion."""
    jitter: float
    """Distance from the real image. Unit: standard deviations."""
    counts: NDArray[np.int64]
    """(C,) training images behind each emotion."""
    labels: tuple[str, ...]
    """The C emotions."""

    @staticmethod
    def of(sample: FeatureSample, gaussian: GaussianSpace, *, jitter: float) -> "NeighbourSpace":
        """The space of sampled images, with the deviations of all."""
        kept = [sample.emotions.get(row) for row in range(len(gaussian.labels))]
        most = max((len(part.ids) for part in kept if part), default=0)
        features = {}
        for member in gaussian.members:
            rows = np.zeros((len(kept), most, gaussian.std[member].shape[1]), np.float16)
            for row, part in enumerate(kept):
                if part:
                    rows[row, : len(part.ids)] = part.features[member]
            features[member] = rows
        ids = tuple(tuple(part.ids) if part else () for part in kept)
        return NeighbourSpace(features, ids, gaussian.std, jitter, gaussian.counts, gaussian.labels)

    @property
    def members(self) -> tuple[str, ...]:
        """Those of MEMBERS that can be drawn."""
        return members_in(self.features)

    def sample(self, emotion: str, generator: torch.Generator) -> Draw:
        """Choose an image of the emotion and jitter its members.

        Raises:
            ValueError: for an unknown emotion, or a space that was built without an image of it.
        """
        row = drawable_row(self, emotion)
        chosen = int(torch.randint(len(self.ids[row]), (1,), generator=generator))
        features = {}
        for member in self.members:
            real = self.features[member][row, chosen].astype(np.float64)
            features[member] = draw_normal(real, self.jitter * self.std[member][row], generator)
        return Draw(features, f"training image {self.ids[row][chosen]}")

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, atomically."""
        tensors: dict[str, NDArray[np.generic]] = {f"features.{m}": v for m, v in self.features.items()}
        tensors |= {f"std.{m}": v for m, v in self.std.items()} | {"counts": self.counts}
        metadata = {KIND: NEIGHBOURS, _IDS: json.dumps(self.ids), _JITTER: repr(self.jitter)}
        write_space_file(path, tensors, labels=self.labels, metadata=metadata)

    @staticmethod
    def read(file: SpaceFile, labels: Sequence[str]) -> "NeighbourSpace":
        """What `save` wrote."""
        features = {member: rows.astype(np.float16) for member, rows in file.of("features").items()}
        ids = tuple(tuple(row) for row in json.loads(file.metadata[_IDS]))
        counts = file.tensors["counts"].astype(np.int64)
        jitter = float(file.metadata[_JITTER])
        return NeighbourSpace(features, ids, file.of("std"), jitter, counts, tuple(labels))
