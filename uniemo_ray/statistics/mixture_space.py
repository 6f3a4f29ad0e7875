"""An emotion space of components: several diagonal Gaussians for each emotion, joint over the members."""

# C emotions, D width, K components

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
        return members_in(self.mean)

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
        place = row, component
        features = {m: draw_normal(self.mean[m][place], self.std[m][place], generator) for m in self.members}
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
