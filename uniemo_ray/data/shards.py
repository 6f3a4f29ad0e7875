"""Shards of canonical samples: which entries go into which, and how one of them is written.

A shard is a function of its entries and of the files behind them. It is written atomically under a stable
name and carries a fingerprint of all that, so a repeated write gives the same file and is skipped.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pyarrow import fs

from uniemo_ray.data.samples import (
    AttributeNames,
    Entry,
    Reason,
    Rejected,
    Sample,
    read_sample,
    resolve_image,
    to_table,
)
from uniemo_ray.data.schema import encode_table, put_bytes, read_notes
from uniemo_ray.emotions import LabelSpace

_FORMAT = 1
_SUMMARY, _FINGERPRINT = "uniemo.summary", "uniemo.fingerprint"
_BLOCK = 1 << 20


class ShardFile(NamedTuple):
    """One written shard."""

    name: str
    """`train/part-00000`, without ending."""
    rows: int
    bytes: int
    sha256: str
    """Of the Parquet file."""
    fingerprint: str
    """Digest of all that determines the shard."""
    seconds: float
    """Time of its writing; 0 where it was found finished."""


def shard_order(image_id: str) -> bytes:
    """Sort key that shuffles images the same way everywhere."""
    return hashlib.blake2b(image_id.encode(), digest_size=16).digest()


class ShardLimits(NamedTuple):
    """When a shard is full."""

    rows: int
    bytes: int
    """Of image files; a single larger image still makes a shard."""


def plan_shards(
    entries: Sequence[Entry], split: str, *, root: Path, limits: ShardLimits
) -> list[dict[str, Any]]:
    """Shards of a split as plain JSON: `split`, `name` and `entries`, in the order of `shard_order`."""
    groups: list[list[Entry]] = []
    size = 0
    for entry in sorted(entries, key=lambda entry: shard_order(entry.image_id)):
        of_entry = _size(root / resolve_image(root, entry))
        size += of_entry
        if not groups or len(groups[-1]) == limits.rows or size > limits.bytes:
            groups.append([])
            size = of_entry
        groups[-1].append(entry)
    return [
        {"split": split, "name": f"part-{number:05d}.parquet", "entries": group}
        for number, group in enumerate(groups)
    ]


@dataclass(frozen=True)
class ShardWriter:
    """Writes shards of one data set; can be sent to workers."""

    root: Path
    """Data folder."""
    out: str
    """Target folder inside `filesystem`."""
    filesystem: fs.FileSystem
    names: AttributeNames
    labels: tuple[str, ...]
    source: str
    max_pixels: int
    valence_of: LabelSpace | None = None
    """The set's classes, where samples are labelled with the valence of their own label."""

    def write(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Write the shard of a plan's item, unless it is there; return its summary, plain JSON."""
        started = time.monotonic()
        entries = [Entry(*row) for row in spec["entries"]]
        path = f"{self.out}/{spec['split']}/{spec['name']}"
        fingerprint = self.fingerprint(spec["split"], entries)
        notes = read_notes(path, filesystem=self.filesystem) or {}
        is_skipped = notes.get(_FINGERPRINT) == fingerprint
        if is_skipped:
            summary, size, digest = json.loads(notes[_SUMMARY]), *self._measure(path)
        else:
            summary, size, digest = self._write(spec, entries, path, fingerprint)
        seconds = 0.0 if is_skipped else time.monotonic() - started
        name = f"{spec['split']}/{spec['name'].removesuffix('.parquet')}"
        file = ShardFile(name, summary["rows"], size, digest, fingerprint, round(seconds, 3))
        return {**summary, "file": file, "is_skipped": is_skipped}

    def _write(
        self, spec: dict[str, Any], entries: list[Entry], path: str, fingerprint: str
    ) -> tuple[dict[str, Any], int, str]:
        read = [
            read_sample(self.root, entry, max_pixels=self.max_pixels, names=self.names, labels=self.labels)
            for entry in entries
        ]
        read = [self._relabel(item, entry) for item, entry in zip(read, entries, strict=True)]
        samples = [item for item in read if isinstance(item, Sample)]
        rejected = [item._replace(split=spec["split"]) for item in read if isinstance(item, Rejected)]
        summary = _summarise(spec, samples, rejected)
        table = to_table(samples, split=spec["split"], source=self.source)
        data = encode_table(table, notes={_FINGERPRINT: fingerprint, _SUMMARY: json.dumps(summary)})
        size = put_bytes(data, path, filesystem=self.filesystem)
        return summary, size, hashlib.sha256(data).hexdigest()

    def _relabel(self, item: Sample | Rejected, entry: Entry) -> Sample | Rejected:
        if self.valence_of is None or isinstance(item, Rejected):
            return item
        side = self.valence_of.valence(item.emotion)
        if side is None:
            detail = f"{item.emotion} is neither positive nor negative"
            return Rejected(item.image_id, entry.image, Reason.UNKNOWN_LABEL, detail)
        return item._replace(emotion=side)

    def _measure(self, path: str) -> tuple[int, str]:
        """Size and sha256 of a shard that was found finished."""
        size, digest = 0, hashlib.sha256()
        with self.filesystem.open_input_stream(path) as stream:
            while block := stream.read(_BLOCK):
                size += len(block)
                digest.update(block)
        return size, digest.hexdigest()

    def fingerprint(self, split: str, entries: Sequence[Entry]) -> str:
        """Digest of all that determines a shard; files count by size and time of change."""
        facts = [_FORMAT, split, self.source, self.max_pixels, self.names]
        facts += [] if self.valence_of is None else [self.valence_of.name]
        stamps = [
            (
                *entry,
                _stamp(self.root / resolve_image(self.root, entry)),
                _stamp(self.root / entry.annotation) if entry.annotation else None,
            )
            for entry in entries
        ]
        return hashlib.sha256(json.dumps([facts, stamps]).encode()).hexdigest()


def _summarise(spec: dict[str, Any], samples: list[Sample], rejected: list[Rejected]) -> dict[str, Any]:
    return {
        "split": spec["split"],
        "name": spec["name"],
        "rows": len(samples),
        "rejected": rejected,
        "emotions": Counter(sample.emotion for sample in samples),
        "scenes": sorted({sample.scene for sample in samples if sample.scene}),
        "objects": sorted({name for sample in samples for name in sample.objects}),
        "with_scene": sum(sample.scene is not None for sample in samples),
        "with_object": sum(bool(sample.objects) for sample in samples),
    }


def _size(file: Path) -> int:
    stamp = _stamp(file)
    return stamp[0] if stamp else 0


def _stamp(file: Path) -> list[int] | None:
    try:
        status = file.stat()
    except (OSError, ValueError):
        return None  # the reader names what is wrong with it
    return [status.st_size, status.st_mtime_ns]
