"""The protocol of the published numbers: which images and pairs are measured, and how they are read.

It is that of the released scripts (UniEmo's metrics/FID.py and metrics/Semantic_metrics.py). Generated images
are JPEG files there, of Pillow's default quality, and the scripts read those.
"""

# M images, K pairs, B batch, H height, W width, E CLIP joint width

from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from uniemo_ray.data.images import normalise
from uniemo_ray.metrics.frechet import FeatureSums
from uniemo_ray.metrics.pairs import Floats, Ints, Names, PairMean, rows_by_emotion
from uniemo_ray.metrics.perceptual import Distance
from uniemo_ray.metrics.pictures import Pictures, as_saved
from uniemo_ray.models.clip import ClipParts, image_features
from uniemo_ray.seeds import named_rng

PER_EMOTION = 1000
"""Generated images of an emotion that the published FID takes."""
PAIRS = 10
"""Pairs that the script draws for an emotion."""
_ZERO, _ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def chosen_rows(image_ids: Names, emotions: Names) -> Ints:
    """Sorted rows of the images that count: of each emotion the first `PER_EMOTION` by image id."""
    first = [own[:PER_EMOTION] for own in rows_by_emotion(image_ids, emotions).values()]
    return np.sort(np.concatenate(first)) if first else np.zeros(0, dtype=np.int64)


def fid_name(generated: Mapping[str, FeatureSums], labels: Sequence[str]) -> Literal["fid", "fid_small"]:
    """`fid` of `PER_EMOTION` images of each of the data set's emotions, as the published one needs them."""
    counts = [generated[emotion].count if emotion in generated else 0 for emotion in labels]
    return "fid" if set(counts) == {PER_EMOTION} else "fid_small"


def draw_published_pairs(
    image_ids: Names, emotions: Names, *, labels: Sequence[str], seed: int
) -> dict[str, Ints]:
    """`PAIRS` pairs of distinct rows (K, 2) for each emotion, seeded.

    The script never empties its list of images, so those of an emotion's pairs come from this emotion and all
    before it, in the order of `labels`. A pair may come twice. Emotions without images have no pairs, nor
    has a first emotion with a single image.
    """
    rows = rows_by_emotion(image_ids, emotions)
    pool = np.zeros(0, dtype=np.int64)
    drawn = {}
    for emotion in labels:
        own = rows.get(emotion, pool[:0])
        pool = np.concatenate([pool, own])
        if len(own) and len(pool) > 1:
            rng = named_rng(seed, f"published-pairs/{emotion}")
            pairs = [rng.choice(len(pool), size=2, replace=False) for _ in range(PAIRS)]
            drawn[emotion] = pool[np.array(pairs)]
    return drawn


def mean_over_published_pairs(
    name: str, drawn: Mapping[str, Ints], *, distance: Callable[[Ints, Ints], Floats]
) -> PairMean:
    """Mean of `distance(rows, other rows) -> (K,)` over each emotion's pairs, then over emotions.

    No value of an emotion is given, because its pairs mix emotions. The standard error is that of the pairs,
    which are drawn independently.

    Raises:
        ValueError: without pairs, or when a distance is not finite.
    """
    values = [distance(pairs[:, 0], pairs[:, 1]) for pairs in drawn.values()]
    if not values:
        raise ValueError(f"{name} needs two images, got fewer")
    if not all(np.isfinite(v).all() for v in values):
        raise ValueError(f"{name}: a distance is not finite, check the images")
    variance = sum(float(v.var(ddof=1)) / len(v) for v in values)
    return PairMean(
        name=name,
        mean=float(np.mean([v.mean() for v in values])),
        standard_error=sqrt(variance) / len(values),
        per_emotion={},
        pairs=sum(len(v) for v in values),
        without_pairs=(),
    )


def lpips_published(pictures: Pictures, drawn: Mapping[str, Ints], *, distance: Distance) -> PairMean:
    """`lpips`: the library is fed [0, 1], where it expects [-1, 1], because the script feeds it so.

    Args:
        pictures: of the images, as generated.
        drawn: from `draw_published_pairs`.
        distance: `alex_distance`.
    """

    @torch.no_grad()
    def measure(first: Ints, second: Ints) -> Floats:
        a, b = (normalise(_saved(pictures, rows), _ZERO, _ONE) for rows in (first, second))
        return distance(a, b).double().numpy()

    return mean_over_published_pairs("lpips", drawn, distance=measure)


def sem_d_published(pictures: Pictures, drawn: Mapping[str, Ints], *, clip: ClipParts) -> PairMean:
    """`sem_d`: mean squared difference of unnormalised features of almost black pictures.

    The script gives CLIP's processor pictures in [0, 1], and the processor divides by 255 once more.

    Args:
        pictures: of the images, as generated.
        drawn: from `draw_published_pairs`.
        clip: OpenAI's ViT-L/14.
    """

    @torch.no_grad()
    def features(rows: Ints) -> NDArray[np.float64]:
        prepare = clip.preprocess()
        squares = np.stack([prepare.square(picture) for picture in _saved(pictures, rows)])
        mean, std = (tuple(255 * v for v in values) for values in (prepare.mean, prepare.std))
        device = next(clip.model.parameters()).device
        # (x / 255 - mean) / std with x in [0, 1] is (x - 255 mean) / (255 std).
        return image_features(clip, normalise(squares, mean, std).to(device)).double().cpu().numpy()

    def measure(first: Ints, second: Ints) -> Floats:
        return np.asarray(np.square(features(first) - features(second)).mean(axis=1))

    return mean_over_published_pairs("sem_d", drawn, distance=measure)


def _saved(pictures: Pictures, rows: Ints) -> NDArray[np.uint8]:
    return np.stack([as_saved(picture) for picture in pictures(rows)])
