"""Seeded, stratified splits for data sets that come without them, or with only a training and a test part."""

import math
from collections import defaultdict
from collections.abc import Iterable
from operator import attrgetter
from typing import NamedTuple

from uniemo_ray.data.samples import Entry
from uniemo_ray.seeds import hash_seed

SMALLEST = 3
"""A class with fewer images only trains."""


class Shares(NamedTuple):
    """Share of each class that is held out, 0 to 1; the rest trains."""

    val: float
    test: float


LITERATURE = Shares(val=0.05, test=0.15)
"""80/5/15, as on FI (You et al., AAAI 2016) and EmoSet."""
FIFTH = Shares(val=0.05, test=0.20)
"""A fifth tests, as in the five folds on Twitter I (You et al., AAAI 2015); validation comes off the rest."""
OFFICIAL = Shares(val=5 / 85, test=0.0)
"""For a training part without validation images: training to validation as 80 to 5."""

OF_FOUR = Shares(val=1 / 16, test=0.0)
"""Four folds of five train and validate: 75 to 5 percent of the set."""
FOLDS = 5


def stratify(entries: Iterable[Entry], shares: Shares, *, seed: int) -> dict[str, list[Entry]]:
    """Split every class by the shares.

    Which images go where depends on the seed, the labels and the image ids alone, not on the order of files.
    A class of `SMALLEST` images or more has at least one image in each split whose share is not 0.

    Returns:
        `train`, `val` and `test`, each sorted by image id.
    """
    classes: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        classes[entry.emotion].append(entry)
    parts: dict[str, list[Entry]] = {"train": [], "val": [], "test": []}
    for members in classes.values():
        drawn = sorted(members, key=lambda e: (hash_seed("split", seed, e.image_id), e.image_id))
        val, test = (_count(len(drawn), share) for share in shares)
        parts["val"] += drawn[:val]
        parts["test"] += drawn[val : val + test]
        parts["train"] += drawn[val + test :]
    return {split: sorted(part, key=attrgetter("image_id")) for split, part in parts.items()}


def split_by_fold(entries: Iterable[Entry], *, fold: int, seed: int) -> dict[str, list[Entry]]:
    """One of `FOLDS` splits; over all of them each entry is in exactly one test part.

    The entries of a class are dealt like cards, and the next class goes on where the last one ended. So folds
    differ by one image at most, in each class and in all. Which images are in a fold depends on the seed, the
    labels and the image ids alone.

    Args:
        entries: of the whole set.
        fold: that tests, from 0.
        seed: of the folds and of the validation part.

    Returns:
        `train`, `val` and `test`, each sorted by image id.
    """
    dealt = sorted(entries, key=lambda e: (e.emotion, hash_seed("fold", seed, e.image_id), e.image_id))
    rest = [entry for place, entry in enumerate(dealt) if place % FOLDS != fold]
    tested = sorted(dealt[fold::FOLDS], key=attrgetter("image_id"))
    return {**stratify(rest, OF_FOUR, seed=seed), "test": tested}


def _count(size: int, share: float) -> int:
    if not share or size < SMALLEST:
        return 0
    return max(1, math.floor(share * size + 0.5))
