"""Seeded pairs of images of one emotion, and the mean of a distance over them."""

# M images, K pairs

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from uniemo_ray.seeds import named_rng

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Names: TypeAlias = Sequence[str] | pa.Array
"""Image ids or emotions; an Arrow array where there may be millions."""


@dataclass(frozen=True)
class PairMean:
    """Mean over the pairs of each emotion, then over emotions."""

    name: str
    mean: float
    standard_error: float | None
    """Jackknife over images, since pairs share them; None when an emotion has too few (below 3)."""
    per_emotion: dict[str, float]
    """Mean of each emotion that has a pair."""
    pairs: int
    """Pairs in all."""
    without_pairs: tuple[str, ...]
    """Emotions with a single image, which have no pair and do not enter the mean."""


def draw_pairs(count: int, *, pairs: int, rng: np.random.Generator) -> Ints:
    """Distinct unordered pairs (K, 2) with first < second < `count`; all of them when K <= `pairs`."""
    total = count * (count - 1) // 2
    chosen = np.arange(total) if total <= pairs else np.sort(rng.choice(total, size=pairs, replace=False))
    return pairs_by_number(chosen.astype(np.int64))


def pairs_by_number(numbers: Ints) -> Ints:
    """Pair number n = j (j - 1) / 2 + i is (i, j), with i < j; (K,) to (K, 2)."""
    second = ((1 + np.sqrt(8.0 * numbers + 1)) / 2).astype(np.int64)
    second -= second * (second - 1) // 2 > numbers  # the float root may be one too large
    return np.stack([numbers - second * (second - 1) // 2, second], axis=1)


def rows_by_emotion(image_ids: Names, emotions: Names) -> dict[str, Ints]:
    """Rows of each emotion in the order of their image ids; emotions are sorted by name.

    Without a Python object for each row, because there may be millions.

    Raises:
        ValueError: for unequal lengths or a repeated id.
    """
    ids = _strings(image_ids)
    labels = emotions if isinstance(emotions, pa.DictionaryArray) else _strings(emotions).dictionary_encode()
    order = pc.sort_indices(ids)
    sorted_ids = ids.take(order)
    is_repeated = pc.any(pc.equal(sorted_ids[1:], sorted_ids[:-1])).as_py()
    del sorted_ids
    if len(ids) != len(labels) or is_repeated:
        raise ValueError(
            f"expected distinct ids, as many as emotions ({len(labels)}), got {len(ids)} ids"
            + (" with repeated ones" if is_repeated else "")
        )
    rows = order.to_numpy().astype(np.int64)
    codes, names = labels.indices.to_numpy()[rows], labels.dictionary.to_pylist()
    return {name: rows[codes == names.index(name)] for name in sorted(names)}


def _strings(names: Names) -> pa.Array:
    wanted = pa.large_string()
    return names.cast(wanted) if isinstance(names, pa.Array) else pa.array(names, wanted)


def emotion_pairs(image_ids: Names, emotions: Names, *, pairs: int, seed: int) -> dict[str, Ints]:
    """Row pairs (K, 2) within each emotion, which depend on the seed and the ids, not on the rows' order.

    Raises:
        ValueError: for unequal lengths or a repeated id.
    """
    found = {}
    for emotion, own in rows_by_emotion(image_ids, emotions).items():
        rng = named_rng(seed, f"pairs/{emotion}")
        found[emotion] = own[draw_pairs(len(own), pairs=pairs, rng=rng)]
    return found


def mean_over_pairs(
    name: str,
    image_ids: Names,
    emotions: Names,
    *,
    distance: Callable[[Ints, Ints], Floats],
    pairs: int,
    seed: int,
) -> PairMean:
    """Mean of `distance(rows, other rows) -> (K,)` over at most `pairs` pairs of each emotion.

    Raises:
        ValueError: when no emotion has two images, or a distance is not finite.
    """
    drawn = emotion_pairs(image_ids, emotions, pairs=pairs, seed=seed)
    values = {e: distance(p[:, 0], p[:, 1]) for e, p in drawn.items() if len(p)}
    if not values:
        raise ValueError(f"{name} needs two images of some emotion, got {len(image_ids)} images in all")
    if not all(np.isfinite(v).all() for v in values.values()):
        raise ValueError(f"{name}: a distance is not finite, check the images and the features")
    means = {emotion: float(v.mean()) for emotion, v in values.items()}
    variances = [_variance(drawn[emotion], v) for emotion, v in values.items()]
    known = [v for v in variances if v is not None]
    return PairMean(
        name=name,
        mean=float(np.mean(list(means.values()))),
        standard_error=sqrt(sum(known)) / len(means) if len(known) == len(means) else None,
        per_emotion=means,
        pairs=sum(len(v) for v in values.values()),
        without_pairs=tuple(sorted(set(drawn) - set(values))),
    )


def _variance(pairs: Ints, values: Floats) -> float | None:
    """Jackknife variance of the mean of `values`: leave out one image with all its pairs."""
    images, index = np.unique(pairs, return_inverse=True)
    index = index.reshape(pairs.shape)
    count, total = np.zeros(len(images)), np.zeros(len(images))
    for side in (0, 1):
        np.add.at(count, index[:, side], 1.0)
        np.add.at(total, index[:, side], values)
    left = len(values) - count
    if (left == 0).any():
        return None
    means = (values.sum() - total) / left
    return float((len(images) - 1) / len(images) * np.square(means - means.mean()).sum())
