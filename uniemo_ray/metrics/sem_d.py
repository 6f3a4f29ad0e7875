"""Sem-D: how far apart, in meaning, images of one emotion lie."""

# M images, K pairs, E joint width

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from uniemo_ray.metrics.pairs import Floats, Ints, PairMean, mean_over_pairs

PUBLISHED_CLIP = ("ViT-L-14", "ViT-L-14-quickgelu")
"""open_clip names of the published protocol's model, which has OpenAI's weights."""


def sem_d_name(clip: str, *, pretrained: str | None) -> str:
    """`sem_d` for the published protocol's CLIP, `sem_d_clip` for features of any other."""
    return "sem_d" if clip in PUBLISHED_CLIP and pretrained == "openai" else "sem_d_clip"


def sem_d(
    features: ArrayLike,
    image_ids: Sequence[str],
    emotions: Sequence[str],
    *,
    clip: str,
    pretrained: str | None,
    pairs: int,
    seed: int,
) -> PairMean:
    """Mean squared distance, averaged over dimensions, of unnormalised CLIP image features.

    Args:
        features: (M, E).
        image_ids: M distinct ids.
        emotions: M names.
        clip: name of the CLIP model behind the features.
        pretrained: its open_clip weight tag; both decide the metric's name.
        pairs: largest number of pairs per emotion.
        seed: of the pairs.

    Raises:
        ValueError: for another shape, a non-finite feature, or when no emotion has two images.
    """
    rows = np.asarray(features)
    if rows.ndim != 2 or len(rows) != len(image_ids):
        raise ValueError(f"expected features ({len(image_ids)}, E), got {rows.shape}")

    def distance(first: Ints, second: Ints) -> Floats:
        gaps = [
            np.square(rows[i].astype(np.float64) - rows[j]).mean() for i, j in zip(first, second, strict=True)
        ]
        return np.array(gaps, dtype=np.float64)

    name = sem_d_name(clip, pretrained=pretrained)
    return mean_over_pairs(name, image_ids, emotions, distance=distance, pairs=pairs, seed=seed)
