"""Rows of stored latents to batches, without decoding a picture."""

# B batch, M images, c, h, w latent

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from uniemo_ray.emotions import LabelSpace
from uniemo_ray.seeds import hash_seed, id_hashes
from uniemo_ray.training.batches import Batch, Raw, decode_latents

COLUMNS = ("image_id", "emotion", "latent")
"""What is read of each row."""


@dataclass(frozen=True, kw_only=True)
class LatentBatches:
    """Makes batches of one data set; a row's result is a function of (seed, epoch, image id) alone."""

    space: LabelSpace
    """Classes of the data set."""
    seed: int
    """Base of what is drawn."""
    templates: int = 1
    """Prompts of which each image gets one in each epoch."""

    def __call__(self, raw: Raw, *, epoch: int, is_training: bool) -> Batch:
        """`latents` (B, c, h, w) float32, `emotion` and `template` (B,) int64.

        Raises:
            ValueError: an unknown label.
        """
        ids = [str(name) for name in raw["image_id"]]
        drawn = [hash_seed(self.seed, "template", epoch, name) % self.templates for name in ids]
        tensors = {
            "latents": decode_latents(raw["latent"]),
            "emotion": torch.tensor([self.space.position(str(name)) for name in raw["emotion"]]),
            "template": torch.tensor(drawn),
        }
        return Batch(tensors, ids)


def first_of_each(
    image_ids: Sequence[str], labels: Sequence[str], counts: NDArray[np.bool_], *, most: int, seed: int
) -> NDArray[np.bool_]:
    """Which of M images are the first `most` of their label, in an order that the seed draws.

    Args:
        image_ids: M ids.
        labels: Of the images.
        counts: (M,) those of which any may be taken.
        most: Images of a label.
        seed: Run seed; fewer images of one seed lie among more.
    """
    drawn = id_hashes(f"{hash_seed(seed, 'few')}/{name}" for name in image_ids)
    chosen, taken = np.zeros(len(drawn), dtype=bool), Counter[str]()
    for row in np.argsort(drawn, kind="stable"):
        if counts[row] and taken[labels[row]] < most:
            taken[labels[row]] += 1
            chosen[row] = True
    return chosen
