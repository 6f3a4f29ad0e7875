"""What the Parquet file of a shard looks like: how a table becomes its bytes, and what a found file holds."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

_PLAN_KEY = b"uniemo_ray.plan_hash"
_REASON = "reason"
_PICTURES = "image"
PICTURES_PER_GROUP = 256
"""Rows of a group in shards that hold pictures: training reads one group at a time."""


class FoundShard(NamedTuple):
    """What the bytes of a whole shard hold."""

    table: pa.Table
    plan_hash: str
    """What the shard was made for; empty where the file does not say."""


class ShardFormat(Protocol):
    """How shards of one kind are written and read back. Instances can be pickled and sent to workers."""

    def finish(self, rows: pa.Table, name: str) -> pa.Table:
        """The table to commit under a name, of the rows that an actor has made for it."""
        ...

    def encode(self, table: pa.Table, plan_hash: str) -> bytes:
        """The bytes of a finished table; the same rows give the same bytes."""
        ...

    def decode(self, data: bytes) -> FoundShard:
        """The content of bytes that no manifest entry describes, compared with their own checksums.

        Raises:
            ValueError: the bytes are no whole shard (`pa.ArrowInvalid` is a ValueError).
            OSError: a checksum inside the file does not fit.
        """
        ...

    def failures(self, table: pa.Table) -> dict[str, int]:
        """Input rows without a result, by reason."""
        ...

    def input_rows(self, rows: int, failed: Mapping[str, int]) -> int:
        """Rows of the input that a shard with so many rows and failures was made from."""
        ...


class ResultFormat:
    """A row for each row of the input; one without a result has a `reason`."""

    def finish(self, rows: pa.Table, name: str) -> pa.Table:
        """The rows as they are."""
        return rows

    def encode(self, table: pa.Table, plan_hash: str) -> bytes:
        """Parquet with page checksums and the plan hash in the footer."""
        metadata = {**(table.schema.metadata or {}), _PLAN_KEY: plan_hash.encode()}
        sink = pa.BufferOutputStream()
        pq.write_table(
            table.replace_schema_metadata(metadata),
            sink,
            compression="zstd",
            write_page_checksum=True,
            row_group_size=PICTURES_PER_GROUP if _PICTURES in table.column_names else None,
        )
        return bytes(sink.getvalue().to_pybytes())

    def decode(self, data: bytes) -> FoundShard:
        """The rows, if every page has the checksum that it was written with."""
        table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
        return FoundShard(table, (table.schema.metadata or {}).get(_PLAN_KEY, b"").decode())

    def failures(self, table: pa.Table) -> dict[str, int]:
        """Counts of the column `reason`, where the table has one."""
        if _REASON not in table.column_names:
            return {}
        return dict(Counter(reason for reason in table[_REASON].to_pylist() if reason is not None))

    def input_rows(self, rows: int, failed: Mapping[str, int]) -> int:
        """As many as there are rows."""
        return rows


RESULTS = ResultFormat()
