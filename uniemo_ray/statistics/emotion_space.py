"""What an emotion space is (section 4): where the features of an image of an emotion are drawn."""

# C emotions, D width

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialize
from torch import Tensor

from uniemo_ray.store.atomic import write_atomically

MEMBERS = ("scene", "object", "cls", "patch")
"""Pooled scene queries, pooled object queries, class feature and mean patch, in the order they are drawn."""
KIND, EMOTIONS_KEY = "kind", "emotions"
GAUSSIAN = "gaussian"
"""Kind of a file that states none, as all of earlier versions."""


class Draw(NamedTuple):
    """The features of an image that is to be made."""

    features: dict[str, Tensor]
    """Member to a float32 vector (D,), on the CPU."""
    drawn_from: str | None = None
    """What they were drawn around, where a space holds several things for an emotion."""


class EmotionSpace(Protocol):
    """Features of the images of each emotion, to draw others like them."""

    @property
    def members(self) -> tuple[str, ...]:
        """Those of MEMBERS that can be drawn."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The C emotions."""

    @property
    def counts(self) -> NDArray[np.int64]:
        """(C,) training images behind each emotion."""

    def sample(self, emotion: str, generator: torch.Generator) -> Draw:
        """Draw one vector of each member.

        Raises:
            ValueError: for an unknown emotion, or a space that was built without an image of it.
        """

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, atomically."""


def members_in(table: Mapping[str, object]) -> tuple[str, ...]:
    """Those of MEMBERS that a table by member holds, in their order."""
    return tuple(member for member in MEMBERS if member in table)


def draw_normal(
    mean: NDArray[np.floating[Any]], std: NDArray[np.float64], generator: torch.Generator
) -> Tensor:
    """A float32 vector (D,) around a mean, each dimension by itself."""
    noise = torch.randn(len(mean), generator=generator)
    return (torch.from_numpy(mean) + torch.from_numpy(std) * noise).float()


def row_of(emotion: str, labels: Sequence[str]) -> int:
    """Index of an emotion. Raises ValueError for one that is not among the labels."""
    if emotion not in labels:
        raise ValueError(f"unknown emotion {emotion!r}: expected one of {', '.join(labels)}")
    return labels.index(emotion)


def drawable_row(space: EmotionSpace, emotion: str) -> int:
    """Index of an emotion of which the space has images.

    Raises:
        ValueError: for an unknown emotion, or one without an image.
    """
    row = row_of(emotion, space.labels)
    if not space.counts[row]:
        raise ValueError(f"the emotion space holds no image of {emotion!r}: add training images of it")
    return row


class SpaceFile(NamedTuple):
    """Content of an emotion space's file."""

    kind: str
    metadata: dict[str, str]
    tensors: dict[str, NDArray[np.float64]]

    def of(self, prefix: str) -> dict[str, NDArray[np.float64]]:
        """Member to tensor, of the tensors `prefix.MEMBER`."""
        start = f"{prefix}."
        return {n.removeprefix(start): value for n, value in self.tensors.items() if n.startswith(start)}


def write_space_file(
    path: str | Path,
    tensors: dict[str, NDArray[np.generic]],
    *,
    labels: Sequence[str],
    metadata: dict[str, str] | None = None,
) -> None:
    """Write the tensors of a space, atomically."""
    with write_atomically(Path(path)) as file:
        file.write(serialize(tensors, metadata={EMOTIONS_KEY: ",".join(labels), **(metadata or {})}))


def read_space_file(path: str | Path, labels: Sequence[str]) -> SpaceFile:
    """Read the file of a space.

    Raises:
        ValueError: when the file is missing, no emotion space, or one of other emotions than `labels`.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"emotion space {path} cannot be read: {error}") from None
    emotions = metadata.get(EMOTIONS_KEY)
    if emotions != ",".join(labels) or "counts" not in tensors:
        raise ValueError(f"{path} is no emotion space of {', '.join(labels)}: found emotions {emotions!r}")
    return SpaceFile(metadata.get(KIND, GAUSSIAN), metadata, tensors)
