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


def as_dataset(store: Store, prefix: str) -> "ray.data.Dataset":
    """Committed shards below a prefix as a Ray dataset."""
    filesystem, _ = store.arrow()
    return ray.data.read_parquet(shard_paths(store, f"{prefix}/"), filesystem=filesystem)
