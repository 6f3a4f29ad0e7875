"""Shards of a store as Ray datasets and as tables."""

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
import ray.data

from uniemo_ray.store.base import Store
from uniemo_ray.store.shards import read_shards, shard_paths


class AttributeNames(NamedTuple):
    """The attribute base."""

    scenes: tuple[str, ...]
    objects: tuple[str, ...]


def read_split(store: Store, split: str, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Committed shards of a split as one table; for features and scores, not for images at scale."""
    return read_shards(store, f"{split}/", columns=columns)


def as_dataset(store: Store, prefix: str, *more: tuple[Store, str]) -> "ray.data.Dataset":
    """Committed shards below a prefix (and below more of them, in the same storage) as one Ray dataset.

    One read of many files knows its rows from their footers; a union of reads would have to run to count.
    """
    filesystem, _ = store.arrow()
    paths = [path for part, folder in ((store, prefix), *more) for path in shard_paths(part, f"{folder}/")]
    return ray.data.read_parquet(paths, filesystem=filesystem)
