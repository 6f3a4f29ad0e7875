"""Entries of a plan become rows: samples, and those that are rejected with a reason."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from uniemo_ray.data.bucket import fetched, is_bucket
from uniemo_ray.data.samples import (
    AttributeNames,
    Entry,
    Reason,
    Rejected,
    Sample,
    read_sample,
)
from uniemo_ray.data.schema import SAMPLES
from uniemo_ray.data.shards import FileStamps, read_entries
from uniemo_ray.emotions import OWN, LabelSpace
from uniemo_ray.text import one_line

_FORMAT = 1
REJECTION = ("path", "reason", "detail")
READ: pa.Schema = pa.schema(
    [field.with_nullable(True) for field in SAMPLES] + [pa.field(name, pa.string()) for name in REJECTION]
)
"""SAMPLES and the fields of `Rejected`: of a row either the ones or the others are null."""


@dataclass(frozen=True)
class SampleReader:
    """Reads the entries of one data set; can be sent to workers."""

    root: str | Path
    """Data folder: a local path, or an address in a bucket."""
    names: AttributeNames
    labels: tuple[str, ...]
    source: str
    max_pixels: int
    valence_of: LabelSpace | None = None
    """The set's classes, where samples are labelled with the valence of their own label."""

    def read(self, plan: pa.Table) -> pa.Table:
        """READ rows of PLAN rows, in their order.

        An exception that one entry raises rejects that entry, under the name of the exception's class.

        Raises:
            OSError: the disk itself fails, which is no property of an entry.
            MemoryError: the same for memory.
        """
        entries = read_entries(plan)
        with self._files(entries) as root:
            return self._table([self._read(root, entry) for entry in entries], plan)

    def reject(self, plan: pa.Table, reason: str) -> pa.Table:
        """READ rows of PLAN rows that cannot be read.

        Args:
            plan: PLAN rows.
            reason: What becomes the reason up to its first colon, such as `killed 2 processes`.
        """
        name = reason.partition(":")[0]
        rejected = [Rejected(entry.image_id, entry.image, name, reason) for entry in read_entries(plan)]
        return self._table(rejected, plan)

    def fingerprint(self, split: str, entries: Sequence[Entry], *, stamps: FileStamps | None = None) -> str:
        """Digest of all that determines a shard; files count by size and time of change.

        Args:
            split: of the entries.
            entries: of the shard.
            stamps: of the files; of a folder on this disk they can be found here.
        """
        facts: list[object] = [_FORMAT, split, self.source, self.max_pixels, self.names]
        facts += [] if self.valence_of is None else [_identity(self.valence_of)]
        described = (stamps or FileStamps(Path(self.root))).describe(entries)
        return hashlib.sha256(json.dumps([facts, described]).encode()).hexdigest()

    def _files(self, entries: Sequence[Entry]) -> AbstractContextManager[Path]:
        """The folder in which the files of the entries are."""
        return fetched(str(self.root), entries) if is_bucket(self.root) else nullcontext(Path(self.root))

    def _read(self, root: Path, entry: Entry) -> Sample | Rejected:
        try:
            item = read_sample(root, entry, max_pixels=self.max_pixels, names=self.names, labels=self.labels)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # no bad picture, whatever it does to a decoder, ends a run
            # the text may quote bytes of the file that are no Unicode
            detail = one_line(error).encode(errors="replace").decode()
            return Rejected(entry.image_id, entry.image, type(error).__name__, detail)
        return self._relabel(item, entry)

    def _relabel(self, item: Sample | Rejected, entry: Entry) -> Sample | Rejected:
        if self.valence_of is None or isinstance(item, Rejected):
            return item
        side = self.valence_of.valence(item.emotion)
        if side is None:
            detail = f"{item.emotion} is neither positive nor negative"
            return Rejected(item.image_id, entry.image, Reason.UNKNOWN_LABEL, detail)
        return item._replace(emotion=side)

    def _table(self, items: Sequence[Sample | Rejected], plan: pa.Table) -> pa.Table:
        columns: dict[str, Any] = {
            name: [getattr(item, name, None) for item in items] for name in (*Sample._fields, *REJECTION)
        }
        columns |= {"split": plan["split"].to_pylist(), "source": [self.source] * len(items)}
        return pa.Table.from_pydict(columns, schema=READ)


def _identity(space: LabelSpace) -> object:
    """What tells a label space from all others: its name, unless users give it to spaces of their own."""
    return space.stated() if space.name == OWN else space.name
