"""A data set of committed shards as pieces: what is read, kept on disk and shuffled at once."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow.fs import FileSystem

from uniemo_ray.data.schema import ROW_GROUP, SAMPLES
from uniemo_ray.store.base import Store
from uniemo_ray.store.entry import ShardEntry
from uniemo_ray.store.shards import committed, describe_schema

SMALL_SHARDS_BYTES = 8 << 20
"""Shards of few rows lie in one piece up to this size, and up to `ROW_GROUP` rows."""
_READERS = 32


class Part(NamedTuple):
    """Rows `start` to `stop` of a shard."""

    path: str
    """In the file system of the data set."""
    sha256: str
    """Of the whole shard."""
    start: int
    stop: int


class Piece(NamedTuple):
    """Some rows of one large shard, or several small shards."""

    parts: tuple[Part, ...]
    bytes: int
    """Share of its shards' bytes, with the columns that are not read."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(part.stop - part.start for part in self.parts)

    def name(self, columns: Sequence[str]) -> str:
        """The same for the same rows and columns, and for no others."""
        said = json.dumps([[part[1:] for part in self.parts], list(columns)])
        return hashlib.sha256(said.encode()).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
class ShardRows:
    """Rows of shards that training or validation shows; light, so that it travels to every worker.

    Attributes:
        pieces: In the order of the shards.
        columns: What is read of them.
        filesystem: Where all of them lie.
        repeats: How often an epoch shows each row, in the order of the pieces; None: once.
    """

    pieces: tuple[Piece, ...]
    columns: tuple[str, ...]
    filesystem: FileSystem
    repeats: NDArray[np.uint16] | None = None

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Rows that an epoch shows of each piece."""
        if self.repeats is None:
            return self._stored
        return np.add.reduceat(self.repeats.astype(np.int64), self._firsts) if self.pieces else self._stored

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Bytes of each piece."""
        return np.array([piece.bytes for piece in self.pieces], dtype=np.int64)

    @property
    def rows(self) -> int:
        """Rows that an epoch shows."""
        return int(self.sizes.sum())

    def row_and_copy(self, piece: int, shown: int) -> tuple[int, int]:
        """The stored row behind row `shown` of a piece, and which of its copies that is (0: the first)."""
        if self.repeats is None:
            return shown, 0
        ends = self._ends(piece)
        row = int(np.searchsorted(ends, shown, side="right"))
        return row, shown - (int(ends[row - 1]) if row else 0)

    @cached_property
    def _stored(self) -> NDArray[np.int64]:
        return np.array([piece.rows for piece in self.pieces], dtype=np.int64)

    @cached_property
    def _firsts(self) -> NDArray[np.int64]:
        return np.cumsum(self._stored) - self._stored

    def _ends(self, piece: int) -> NDArray[np.int64]:
        assert self.repeats is not None
        first = int(self._firsts[piece])
        return np.cumsum(self.repeats[first : first + int(self._stored[piece])], dtype=np.int64)


def shard_rows(parts: Sequence[tuple[Store, str]], *, columns: Sequence[str]) -> ShardRows:
    """All committed rows below prefixes of stores of the same storage.

    Only shards with row groups of an unknown size are opened, for their footers.

    Args:
        parts: Store and prefix, such as `samples/train`.
        columns: What is read.
    """
    pieces: list[Piece] = []
    for store, prefix in parts:
        _, root = store.arrow()
        entries = list(committed(store, f"{prefix}/").values())
        with ThreadPoolExecutor(_READERS) as pool:
            groups = list(pool.map(lambda entry, place=store: _groups(place, entry), entries))
        pieces += _gather(
            [(f"{root}/{entry.key}", entry, ends) for entry, ends in zip(entries, groups, strict=True)]
        )
    filesystem, _ = parts[0][0].arrow()
    return ShardRows(pieces=tuple(pieces), columns=tuple(columns), filesystem=filesystem)


def read_columns(data: ShardRows, columns: Sequence[str]) -> pa.Table:
    """Small columns of all stored rows, in their order."""
    with ThreadPoolExecutor(_READERS) as pool:
        return pa.concat_tables(
            pool.map(lambda piece: read_piece(piece, columns, data.filesystem), data.pieces)
        )


def read_piece(piece: Piece, columns: Sequence[str], filesystem: FileSystem) -> pa.Table:
    """The rows of a piece, from storage.

    Raises:
        OSError: a shard is gone or cannot be read.
        ValueError: it has other rows or columns than its manifest entry said.
    """
    tables = [_read_part(part, columns, filesystem) for part in piece.parts]
    return pa.concat_tables(tables)


def _read_part(part: Part, columns: Sequence[str], filesystem: FileSystem) -> pa.Table:
    with filesystem.open_input_file(part.path) as source:
        file = pq.ParquetFile(source, pre_buffer=True)
        if missing := set(columns) - set(file.schema_arrow.names):
            raise ValueError(f"{part.path} has no column {min(missing)!r}")
        wanted: list[int] = []
        first = position = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if position < part.stop and position + rows > part.start:
                if not wanted:
                    first = position
                wanted.append(group)
            position += rows
        if position < part.stop:
            raise ValueError(f"{part.path} has {position} rows, less than the {part.stop} that were listed")
        table = file.read_row_groups(wanted, columns=list(columns))
    return (
        table.replace_schema_metadata(None)
        .select(list(columns))
        .slice(part.start - first, part.stop - part.start)
    )


def _groups(store: Store, entry: ShardEntry) -> list[int]:
    """Ends of the runs of rows that can be read by themselves."""
    if entry.rows <= ROW_GROUP:
        return [entry.rows]
    if entry.schema == describe_schema(SAMPLES):  # written by `encode_table`
        return [*range(ROW_GROUP, entry.rows, ROW_GROUP), entry.rows]
    filesystem, root = store.arrow()
    with filesystem.open_input_file(f"{root}/{entry.key}") as source:
        footer = pq.read_metadata(source)
    sizes = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
    return [int(end) for end in np.cumsum(sizes)]


def _gather(shards: Sequence[tuple[str, ShardEntry, list[int]]]) -> Iterator[Piece]:
    """Pieces of shards in their order: each run of rows is one, and neighbouring small shards are."""
    small: list[Piece] = []
    for path, entry, ends in shards:
        runs = [
            Piece(
                (Part(path, entry.sha256, start, stop),), entry.bytes * (stop - start) // max(1, entry.rows)
            )
            for start, stop in zip([0, *ends[:-1]], ends, strict=True)
            if stop > start
        ]
        if len(runs) > 1:
            yield from _joined(small)
            small = []
            yield from runs
        elif runs:
            if not _fit(small, runs[0]):
                yield from _joined(small)
                small = []
            small.append(runs[0])
    yield from _joined(small)


def _fit(small: Sequence[Piece], another: Piece) -> bool:
    rows = sum(piece.rows for piece in small) + another.rows
    return rows <= ROW_GROUP and sum(piece.bytes for piece in small) + another.bytes <= SMALL_SHARDS_BYTES


def _joined(pieces: Sequence[Piece]) -> Iterator[Piece]:
    if pieces:
        yield Piece(tuple(part for p in pieces for part in p.parts), sum(p.bytes for p in pieces))
