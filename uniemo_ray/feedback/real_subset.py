"""Which real training images count when `feedback.real_images` asks for fewer than there are."""

# M images

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from uniemo_ray.config import Config
from uniemo_ray.seeds import hash_seed, id_hashes


class Facts(TypedDict, total=False):
    """What a step's result depends on beside its settings; nothing where all images count."""

    real_images: list[int]


@dataclass(frozen=True)
class RealSubset:
    """So many images, drawn by seed and id; a smaller subset of one seed lies in a larger one."""

    count: int
    seed: int

    def mask(self, image_ids: Sequence[str]) -> NDArray[np.bool_]:
        """Which of all images (M,) count.

        Raises:
            ValueError: fewer images than should count.
        """
        if self.count > len(image_ids):
            raise ValueError(
                f"feedback.real_images is {self.count}, but the training split has {len(image_ids)} usable "
                f"images: lower it, or leave it out for all of them"
            )
        drawn = id_hashes(f"{hash_seed(self.seed, 'real')}/{name}" for name in image_ids)
        mask = np.zeros(len(drawn), dtype=bool)
        mask[np.argsort(drawn, kind="stable")[: self.count]] = True
        return mask

    def keep(self, image_ids: Sequence[str]) -> pa.Array:
        """Ids of the images that count."""
        return pa.array(np.array(image_ids, dtype=object)[self.mask(image_ids)], pa.string())


def subset_of(config: Config, round_: int = 1) -> RealSubset | None:
    """The images of a round; None for all."""
    count = config.for_round(round_).feedback.real_images
    return None if count is None else RealSubset(count, config.seed)


def facts_of(subset: RealSubset | None) -> Facts:
    """What a step's fingerprint says of the subset, so that a run of all images keeps its own."""
    return {} if subset is None else {"real_images": [subset.count, subset.seed]}
