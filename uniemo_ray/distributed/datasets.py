"""Shards of a store as Ray datasets and as tables."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray.data
from ray.data import Dataset as Dataset

from uniemo_ray.pools import Pool
from uniemo_ray.store.base import Store
from uniemo_ray.store.shards import committed, read_shards, shard_paths

SMALL_BYTES = 64 << 20
"""Size of files up to which a data set passes through the driver."""
ROWS_PER_BLOCK = 128
"""Blocks small enough to be shuffled among the workers."""


def as_dataset(
    store: Store,
    prefix: str,
    *more: tuple[Store, str],
    columns: Sequence[str] | None = None,
    pool: Pool | None = None,
) -> Dataset:
    """Committed shards below a prefix (and below more of them, in the same storage) as one Ray dataset.

    Up to `SMALL_BYTES` the driver reads them itself: processes that read would take longer to start.
    With `columns` the others are not read. With `pool`, tasks that read run on its machines.
    """
    parts = [(store, prefix), *more]
    entries = [entry for part, folder in parts for entry in committed(part, f"{folder}/").values()]
    if entries and sum(entry.bytes for entry in entries) <= SMALL_BYTES:
        tables = [read_shards(part, f"{folder}/", columns=columns) for part, folder in parts]
        blocks = [
            table.slice(start, ROWS_PER_BLOCK)
            for table in tables
            for start in range(0, table.num_rows, ROWS_PER_BLOCK)
        ]
        return ray.data.from_arrow(blocks)
    filesystem, _ = store.arrow()
    paths = [path for part, folder in parts for path in shard_paths(part, f"{folder}/")]
    return ray.data.read_parquet(
        paths,
        filesystem=filesystem,
        columns=None if columns is None else list(columns),
        ray_remote_args=selectors_of(pool),
    )


def selectors_of(pool: Pool | None) -> dict[str, Any]:
    """Ray's options that keep work on the machines of a pool."""
    return {} if pool is None else dict(pool.selectors())


def only(rows: Dataset, image_ids: pa.Array | None, *, pool: Pool | None = None) -> Dataset:
    """Rows whose `image_id` is among these, filtered on the machines of a pool; None keeps all."""
    if image_ids is None:
        return rows

    def keep(table: pa.Table) -> pa.Table:
        return table.filter(pc.is_in(table["image_id"], value_set=image_ids))

    kept: Dataset = rows.map_batches(keep, batch_format="pyarrow", **selectors_of(pool))
    return kept
