"""The plan of canonical shards: which entries of a data set go into which shard."""

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from uniemo_ray.data.samples import Entry, resolve_image

PLAN: pa.Schema = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("emotion", pa.string(), nullable=False),  # a label of the data set's label space
        pa.field("image", pa.string(), nullable=False),  # path inside the data folder
        pa.field("annotation", pa.string()),  # path inside the data folder; null: the data set has none
        pa.field("split", pa.string(), nullable=False),
    ]
)
"""What a shard is made from: one row for each entry, in the order of the samples."""
_THREADS, _FILES_PER_TASK = 32, 64
"""Questions to the file system at a time, and files that a thread asks for in one go."""


class ShardLimits(NamedTuple):
    """When a shard is full."""

    rows: int
    bytes: int
    """Bytes of image files; a single larger image still makes a shard."""


class PlannedShard(NamedTuple):
    """One shard of a split, to be made."""

    split: str
    number: int
    """Counted from 0 within the split."""
    entries: list[Entry]

    @property
    def name(self) -> str:
        """Stable name below the folder of all splits, such as `train/part-00000`."""
        return f"{self.split}/part-{self.number:05d}"

    def table(self) -> pa.Table:
        """The entries as rows of schema `PLAN`."""
        columns = {
            name: [getattr(entry, name) for entry in self.entries] for name in PLAN.names if name != "split"
        }
        return pa.Table.from_pydict({**columns, "split": [self.split] * len(self.entries)}, schema=PLAN)


def read_entries(plan: pa.Table) -> list[Entry]:
    """The entries of PLAN rows."""
    return [
        Entry(*values) for values in zip(*(plan[name].to_pylist() for name in Entry._fields), strict=True)
    ]


def shard_order(image_id: str) -> bytes:
    """Sort key that shuffles images the same way everywhere."""
    return hashlib.blake2b(image_id.encode(), digest_size=16).digest()


class EntryStamps(NamedTuple):
    """Size and time of change of an entry's files: bytes and ns, None where there is no file."""

    image: list[int] | None
    annotation: list[int] | None


class FileStamps:
    """What the file system says of the files of a data folder; each file is looked at once.

    Many threads ask at a time: over a network an answer takes a millisecond or more.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[Entry, EntryStamps] = {}

    def look(self, entries: Iterable[Entry]) -> None:
        """Look at the files of the entries that are not known yet."""
        new = [entry for entry in dict.fromkeys(entries) if entry not in self._known]
        parts = [new[start : start + _FILES_PER_TASK] for start in range(0, len(new), _FILES_PER_TASK)]
        with ThreadPoolExecutor(_THREADS) as pool:
            for part, found in zip(parts, pool.map(self._ask, parts), strict=True):
                self._known.update(zip(part, found, strict=True))

    def of(self, entry: Entry) -> EntryStamps:
        """The stamps of one entry."""
        if entry not in self._known:
            self.look([entry])
        return self._known[entry]

    def describe(self, entries: Sequence[Entry]) -> list[tuple[object, ...]]:
        """Entries as plain values with the stamps of their files, for a fingerprint."""
        self.look(entries)
        return [(*entry, *self.of(entry)) for entry in entries]

    def _ask(self, entries: Sequence[Entry]) -> list[EntryStamps]:
        root = self._root
        return [
            EntryStamps(
                _stamp(root / resolve_image(root, entry)),
                _stamp(root / entry.annotation) if entry.annotation else None,
            )
            for entry in entries
        ]


def plan_shards(
    entries: Sequence[Entry],
    split: str,
    *,
    root: Path,
    limits: ShardLimits,
    stamps: FileStamps | None = None,
) -> list[PlannedShard]:
    """Shards of a split, with its entries in the order of `shard_order`.

    Args:
        entries: of the split.
        split: its name.
        root: data folder.
        limits: when a shard is full.
        stamps: of files that were looked at before; it gets those of the entries.
    """
    known = FileStamps(root) if stamps is None else stamps
    known.look(entries)
    groups: list[list[Entry]] = []
    size = 0
    for entry in sorted(entries, key=lambda entry: shard_order(entry.image_id)):
        stamp = known.of(entry).image
        of_entry = stamp[0] if stamp else 0
        size += of_entry
        if not groups or len(groups[-1]) == limits.rows or size > limits.bytes:
            groups.append([])
            size = of_entry
        groups[-1].append(entry)
    return [PlannedShard(split, number, group) for number, group in enumerate(groups)]


def _stamp(file: Path) -> list[int] | None:
    try:
        status = file.stat()
    except (OSError, ValueError):
        return None  # the reader names what is wrong with it
    return [status.st_size, status.st_mtime_ns]
