"""Sem-D: how far apart, in meaning, images of one emotion lie."""

# M images, K pairs, E joint width

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from uniemo_ray.fetch.sources import L14
from uniemo_ray.metrics.pairs import Floats, Ints, Names, PairMean, mean_over_pairs
from uniemo_ray.models.clip import WEIGHTS_FILE, find_clip_config
from uniemo_ray.models.weights_folder import local_folder
from uniemo_ray.store.fingerprint import file_sha256

PUBLISHED_CLIP = ("ViT-L-14", "ViT-L-14-quickgelu")
"""open_clip names of the published protocol's model, which has OpenAI's weights."""
PUBLISHED_SHA256 = dict(L14.sha256)[WEIGHTS_FILE]
"""Digest of the published weights as one file, which `uniemo fetch` downloads."""


def is_published_clip(clip: str, *, pretrained: str | None, published: str = PUBLISHED_SHA256) -> bool:
    """Whether this is the CLIP of the published Sem-D and Emo-A, OpenAI's ViT-L/14.

    Args:
        clip: name or folder (here or `s3://`) of the CLIP model behind the features.
        pretrained: its open_clip weight tag, or a file.
        published: sha256 of the published weights: a file is known by what it holds, not by its name.
    """
    file = Path(pretrained) if pretrained else local_folder(clip) / WEIGHTS_FILE
    if not file.is_file():
        return clip in PUBLISHED_CLIP and pretrained == "openai"
    # With another activation the same weights give other features.
    model = find_clip_config(clip, pretrained=pretrained)[0]["model_cfg"]
    return bool(model.get("quick_gelu")) and file_sha256(file) == published


RowFeatures = Callable[[Ints], NDArray[np.float32]]
"""Rows (B,) of a set to their CLIP features (B, E); only those of the pairs have to be there."""


def sem_d(
    features: RowFeatures,
    image_ids: Names,
    emotions: Names,
    *,
    name: Literal["sem_d_l14", "sem_d_clip"],
    pairs: int,
    seed: int,
) -> PairMean:
    """Mean squared distance, averaged over dimensions, of unnormalised CLIP image features.

    Args:
        features: of the M images; those of the pairs are asked for.
        image_ids: M distinct ids.
        emotions: M names.
        name: `sem_d_l14` for features of OpenAI's ViT-L/14, `sem_d_clip` for those of any other CLIP.
        pairs: largest number of pairs per emotion.
        seed: of the pairs.

    Raises:
        ValueError: for a non-finite feature, or when no emotion has two images.
    """

    def distance(first: Ints, second: Ints) -> Floats:
        return np.asarray(np.square(features(first).astype(np.float64) - features(second)).mean(axis=1))

    return mean_over_pairs(name, image_ids, emotions, distance=distance, pairs=pairs, seed=seed)
