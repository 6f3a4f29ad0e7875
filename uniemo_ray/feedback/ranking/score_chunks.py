"""Chunks of score shards, and the keys by which the filter sorts their rows."""

# M rows of a chunk

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from uniemo_ray.feedback.ranking.external_sort import Positions
from uniemo_ray.feedback.schema import require_columns
from uniemo_ray.feedback.verdicts import NEEDED, Floats, Ints
from uniemo_ray.store.base import Store
from uniemo_ray.store.columns import READERS, read_columns
from uniemo_ray.store.shards import ShardEntry

_SIGN = np.uint32(1 << 31)


class Shard(NamedTuple):
    """A committed shard of scores."""

    name: str
    rows: int


class Chunk(NamedTuple):
    """Neighbouring shards that one task takes into memory."""

    number: int
    shards: tuple[Shard, ...]


class Keys(NamedTuple):
    """Rows to be ranked together, and by what."""

    keys: pa.Array
    """(M,) key of every row of the chunk; the smallest gets rank 0."""
    rows: Positions
    """Which rows of the chunk are ranked, in any order."""


def make_chunks(entries: Iterable[ShardEntry], *, limit: int) -> list[Chunk]:
    """Shards in the order given, together up to `limit` rows; a larger shard is a chunk by itself."""
    groups: list[list[Shard]] = []
    rows = 0
    for entry in entries:
        if not groups or rows + entry.rows > limit:
            groups.append([])
            rows = 0
        groups[-1].append(Shard(entry.name, entry.rows))
        rows += entry.rows
    return [Chunk(number, tuple(shards)) for number, shards in enumerate(groups)]


def read_chunk(source: Store, chunk: Chunk, columns: Sequence[str]) -> pa.Table:
    """Some columns of a chunk, M rows in the order of its shards. Other columns are not read from storage.

    Raises:
        ValueError: a shard lacks columns of scores.
        StoreError: a shard is damaged.
    """
    filesystem, root = source.arrow()

    def read(shard: Shard) -> pa.Table:
        path = f"{root}/{shard.name}.parquet"

        def check(schema: pa.Schema) -> None:
            require_columns(schema.empty_table(), NEEDED, name=path)

        return read_columns(filesystem, path, columns, rows=shard.rows, check=check)

    with ThreadPoolExecutor(READERS) as pool:
        return pa.concat_tables(pool.map(read, chunk.shards))


def id_keys(table: pa.Table) -> dict[str, Keys]:
    """Keys that rank all rows by image id, under the name `id`.

    Raises:
        ValueError: a row without an image id.
    """
    if missing := table["image_id"].null_count:
        raise ValueError(f"{missing} score rows have no image_id: score them again")
    ids = table["image_id"].cast(pa.large_string()).combine_chunks()  # more than 2 GiB of text may come
    # The ids of one emotion mostly ascend, and putting a few ascending runs in order is quick.
    emotions = table["emotion"].combine_chunks().dictionary_encode().indices.fill_null(-1)
    return {"id": Keys(ids, np.argsort(emotions.to_numpy(), kind="stable").astype(np.uint32))}


def score_keys(scores: Floats, id_ranks: Ints) -> NDArray[np.uint64]:
    """Distinct keys (M,) that ascend from the best score to the worst, and with the image id among equals.

    The upper half is the float32 score's bits, turned so that they order as the scores do, descending; the
    lower half is the rank of the image id among all.
    """
    bits = scores.astype(np.float32).view(np.uint32)
    ascending = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    return ((~ascending).astype(np.uint64) << np.uint64(32)) | id_ranks.astype(np.uint64)
