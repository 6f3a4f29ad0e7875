"""Images that a data set holds more than once, found by their content."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from uniemo_ray.config import SPLITS
from uniemo_ray.data.schema import SAMPLES

CONTENT = pa.schema([SAMPLES.field(name) for name in ("split", "image_id", "emotion", "sha256")])
"""What is known of each image: about 100 bytes."""


class Place(NamedTuple):
    """Where an image lies."""

    split: str
    image_id: str
    emotion: str


class Duplicate(NamedTuple):
    """Images with the same bytes."""

    sha256: str
    places: tuple[Place, ...]
    """Two or more, training images first, then by id."""

    @property
    def is_leak(self) -> bool:
        """Whether the image is in several splits."""
        return len({place.split for place in self.places}) > 1

    @property
    def is_conflict(self) -> bool:
        """Whether the image has several labels."""
        return len({place.emotion for place in self.places}) > 1


def find_duplicates(content: pa.Table) -> tuple[Duplicate, ...]:
    """Groups of rows with the same sha256, in the order of their first images.

    Args:
        content: Rows of schema `CONTENT`.
    """
    sizes = content.group_by("sha256").aggregate([([], "count_all")])
    repeated = sizes.filter(pc.field("count_all") > 1)["sha256"]
    groups: dict[str, list[Place]] = defaultdict(list)
    for row in content.filter(pc.is_in(content["sha256"], value_set=repeated.combine_chunks())).to_pylist():
        groups[row["sha256"]].append(Place(row["split"], row["image_id"], row["emotion"]))
    found = [Duplicate(sha256, tuple(sorted(places, key=_order))) for sha256, places in groups.items()]
    return tuple(sorted(found, key=lambda duplicate: _order(duplicate.places[0])))


def describe(duplicates: Sequence[Duplicate]) -> list[str]:
    """One line for each kind of duplicate that there is."""
    leaks = [item for item in duplicates if item.is_leak]
    conflicts = [item for item in duplicates if item.is_conflict]
    others = [item for item in duplicates if not item.is_leak and not item.is_conflict]
    kinds = {
        "images that lie in several splits, byte for byte, so that the test was seen in training": leaks,
        "images with several labels": conflicts,
        "images that lie several times in one split, with one label": others,
    }
    return [f"{what}: {len(found)} ({_example(found[0])})" for what, found in kinds.items() if found]


def _example(duplicate: Duplicate) -> str:
    first, last = duplicate.places[0], duplicate.places[-1]
    return f"{first.image_id} in {first.split} and {last.image_id} in {last.split}"


def _order(place: Place) -> tuple[int, str]:
    return SPLITS.index(place.split), place.image_id
