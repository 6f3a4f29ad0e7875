"""Small committed shards for tests of the loader."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from uniemo_ray.store.base import Store
from uniemo_ray.store.shards import commit_shard
from uniemo_ray.training.loading.pieces import ShardRows, shard_rows


def commit_rows(
    store: Store, rows: Sequence[dict[str, Any]], *, per_shard: int, prefix: str = "train"
) -> None:
    """Rows as shards of a prefix."""
    for number, start in enumerate(range(0, len(rows), per_shard)):
        table = pa.Table.from_pylist(list(rows[start : start + per_shard]))
        commit_shard(store, f"{prefix}/part-{number:05d}", table, plan_hash="test")


def numbered(count: int, *, size: int = 10) -> list[dict[str, Any]]:
    """Rows whose image begins with its number; the rest cannot be compressed, as of photos."""
    rng = np.random.default_rng(0)
    return [
        {"image_id": f"i{i:04d}", "image": f"{i:010d}".encode() + rng.bytes(size - 10), "label": i % 3}
        for i in range(count)
    ]


def make_rows(store: Store, count: int, *, per_shard: int, size: int = 10) -> ShardRows:
    commit_rows(store, numbered(count, size=size), per_shard=per_shard)
    return shard_rows([(store, "train")], columns=["image_id", "image"])
