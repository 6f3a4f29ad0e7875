"""How often each image is seen in an epoch: rare emotions or attributes more often, nothing ever left out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from uniemo_ray.seeds import hash_seed, id_hashes

Sampling = Literal["natural", "emotion", "attribute"]
COPY = "~"
"""Between an image's id and the number of its copy."""


@dataclass(frozen=True)
class Repeats:
    """Mean number of times that an image of a group is seen, 1 or more.

    An image is seen as often as the whole part says, and once more with the probability of the rest,
    which is drawn from (seed, image id). So the rows of an epoch do not depend on the number of workers.
    """

    sampling: Sampling
    of_group: Mapping[str, float]
    seed: int

    def __call__(self, table: pa.Table) -> NDArray[np.uint16]:
        """How often each row is seen, (M,).

        Args:
            table: image_id, emotion and scene of M rows.
        """
        wanted = np.array([self.of_group[group] for group in groups_of(table, self.sampling)])  # (M,)
        names = table["image_id"].to_pylist()
        drawn = id_hashes([f"{hash_seed(self.seed, 'repeat')}/{name}" for name in names]) / 2.0**64
        return np.floor(wanted + drawn).astype(np.uint16)


def copy_id(image_id: str, copy: int) -> str:
    """Id of a copy, counted from 1: each is augmented differently."""
    return f"{image_id}{COPY}{copy}"


def plan_repeats(table: pa.Table, sampling: Sampling, *, most: float, seed: int) -> Repeats:
    """Repeats that make all groups as frequent as the largest, as far as `most` allows.

    Args:
        table: emotion and scene of all training images.
        sampling: `emotion` balances the emotions; `attribute` the scenes of every emotion as well, where
            images without a scene are a group of their own; `natural` leaves all as it is.
        most: Upper bound of a mean number of repeats.
        seed: Run seed.
    """
    sizes = Counter(groups_of(table, sampling))
    largest = max(sizes.values(), default=0)
    return Repeats(sampling, {group: min(most, largest / size) for group, size in sizes.items()}, seed)


def groups_of(table: pa.Table, sampling: Sampling) -> Sequence[str]:
    """Name of each row's group, (M,)."""
    if sampling == "natural":
        return ["all"] * table.num_rows
    emotions: list[str] = table["emotion"].to_pylist()
    if sampling == "emotion":
        return emotions
    scenes = table["scene"].to_pylist()
    return [f"{emotion}/{scene or ''}" for emotion, scene in zip(emotions, scenes, strict=True)]
