"""The plan of canonical shards: which entries of a data set go into which shard."""

import hashlib
from collections.abc import Iterable, Sequence
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


def plan_shards(
    entries: Sequence[Entry], split: str, *, root: Path, limits: ShardLimits
) -> list[PlannedShard]:
    """Shards of a split, with its entries in the order of `shard_order`."""
    groups: list[list[Entry]] = []
    size = 0
    for entry in sorted(entries, key=lambda entry: shard_order(entry.image_id)):
        of_entry = _size(root / resolve_image(root, entry))
        size += of_entry
        if not groups or len(groups[-1]) == limits.rows or size > limits.bytes:
            groups.append([])
            size = of_entry
        groups[-1].append(entry)
    return [PlannedShard(split, number, group) for number, group in enumerate(groups)]


def describe_files(root: Path, entries: Iterable[Entry]) -> list[tuple[object, ...]]:
    """Entries as plain values with size and time of change of their files, for a fingerprint.

    Args:
        root: Data folder.
        entries: What to describe.
    """
    return [
        (
            *entry,
            _stamp(root / resolve_image(root, entry)),
            _stamp(root / entry.annotation) if entry.annotation else None,
        )
        for entry in entries
    ]


def _size(file: Path) -> int:
    stamp = _stamp(file)
    return stamp[0] if stamp else 0


def _stamp(file: Path) -> list[int] | None:
    try:
        status = file.stat()
    except (OSError, ValueError):
        return None  # the reader names what is wrong with it
    return [status.st_size, status.st_mtime_ns]
