"""From a data folder to canonical Parquet shards, through Ray Data.

One small spec row per shard, one map task per spec row: a task reads, checks and writes its own shard
atomically, under a stable name. So a retried task or a resubmitted run can only write the same file
again, and a finished shard of the same content is skipped by its footer.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray.data
from pyarrow import fs

from uniemo_ray.config import SPLITS
from uniemo_ray.data.check import attribute_notes
from uniemo_ray.data.emoset import EmoSetFolder
from uniemo_ray.data.samples import (
    AttributeNames,
    Entry,
    Rejected,
    Sample,
    read_sample,
    resolve_image,
    to_table,
)
from uniemo_ray.data.schema import read_notes, write_table
from uniemo_ray.emotions import EMOTIONS

logger = logging.getLogger(__name__)

_FORMAT = 1
_SUMMARY, _FINGERPRINT = "uniemo.summary", "uniemo.fingerprint"
Batch = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class IngestResult:
    """What became of a data folder."""

    counts: dict[str, int]
    """Samples per split."""
    rejected_counts: dict[str, int]
    """Entries without a sample, per reason."""
    rejected: tuple[Rejected, ...]
    """Every one of them, by split, then shard."""
    scenes: tuple[str, ...]
    """Attribute base: names of info.json in its order, or those of the annotations, sorted."""
    objects: tuple[str, ...]
    with_scene: int
    """Samples, over all splits, that carry a scene."""
    with_object: int
    """Samples, over all splits, that carry an object."""
    shards: int
    """Shards of the data set."""
    skipped: int
    """Shards found finished."""
    notes: tuple[str, ...]
    """What a user should know, such as attributes that the set lacks."""


@dataclass(frozen=True)
class _ShardWriter:
    """The map function: one spec row in, one shard written, its summary out."""

    root: Path
    out: str
    filesystem: fs.FileSystem
    names: AttributeNames
    source: str
    max_pixels: int

    def __call__(self, batch: Batch) -> Batch:
        specs = [json.loads(text) for text in batch["spec"]]
        return {"summary": np.array([json.dumps(self.write(spec)) for spec in specs], dtype=object)}

    def write(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Write the shard of a spec, unless it is there; return its summary."""
        entries = [Entry(*row) for row in spec["entries"]]
        path = f"{self.out}/{spec['split']}/{spec['name']}"
        fingerprint = self.fingerprint(spec["split"], entries)
        notes = read_notes(path, filesystem=self.filesystem) or {}
        if notes.get(_FINGERPRINT) == fingerprint:
            return {**json.loads(notes[_SUMMARY]), "is_skipped": True}
        read = [read_sample(self.root, e, max_pixels=self.max_pixels, names=self.names) for e in entries]
        samples = [item for item in read if isinstance(item, Sample)]
        rejected = [item._replace(split=spec["split"]) for item in read if isinstance(item, Rejected)]
        summary = _summarise(spec, samples, rejected)
        table = to_table(samples, split=spec["split"], source=self.source)
        footer = {_FINGERPRINT: fingerprint, _SUMMARY: json.dumps(summary)}
        write_table(table, path, filesystem=self.filesystem, notes=footer)
        return {**summary, "is_skipped": False}

    def fingerprint(self, split: str, entries: Sequence[Entry]) -> str:
        """Digest of all that determines a shard; files count by size and time of change."""
        facts = [_FORMAT, split, self.source, self.max_pixels, self.names]
        stamps = [
            (
                *entry,
                _stamp(self.root / resolve_image(self.root, entry)),
                _stamp(self.root / entry.annotation),
            )
            for entry in entries
        ]
        return hashlib.sha256(json.dumps([facts, stamps]).encode()).hexdigest()


def ingest_folder(
    root: str | Path,
    out: str,
    *,
    source: str,
    max_pixels: int = 50_000_000,
    rows_per_shard: int = 1000,
    filesystem: fs.FileSystem | None = None,
) -> IngestResult:
    """Read a folder in EmoSet's layout into `out/{split}/part-00000.parquet` and so on.

    Shard k of a split holds entries k * rows_per_shard and following in the order of a hash of their
    image ids, without the rejected ones; so shards are mixed and do not depend on what is rejected.

    Args:
        root: Data folder, visible under this path on every node.
        out: Target folder inside `filesystem`.
        source: Name of the data set, for the column `source`.
        max_pixels: Larger images are rejected.
        rows_per_shard: Entries per shard.
        filesystem: Where `out` lies; the local (or shared) disk when left out.

    Returns:
        Counts, rejected entries and the attribute base.

    Raises:
        FolderError: one line per structural fault, before Ray does anything.
        ValueError: where every training image of an emotion, or every image of a split, is rejected.
    """
    folder = EmoSetFolder(root)
    if filesystem is None:
        filesystem, out = fs.LocalFileSystem(), str(Path(out).absolute())
    specs = [spec for split in SPLITS for spec in _plan(folder.entries(split), split, rows_per_shard)]
    writer = _ShardWriter(folder.root.absolute(), out, filesystem, folder.names, source, max_pixels)
    _prune(writer, {f"{spec['split']}/{spec['name']}" for spec in specs})
    summaries = _run(writer, specs)
    _check_usable(folder, summaries)
    return _result(folder, summaries)


def shard_order(image_id: str) -> bytes:
    """Sort key that shuffles images the same way everywhere."""
    return hashlib.blake2b(image_id.encode(), digest_size=16).digest()


def _plan(entries: Sequence[Entry], split: str, rows_per_shard: int) -> list[dict[str, Any]]:
    ordered = sorted(entries, key=lambda entry: shard_order(entry.image_id))
    return [
        {
            "split": split,
            "name": f"part-{number:05d}.parquet",
            "entries": ordered[start : start + rows_per_shard],
        }
        for number, start in enumerate(range(0, len(ordered), rows_per_shard))
    ]


def _run(writer: _ShardWriter, specs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = [{"spec": json.dumps(spec)} for spec in specs]
    # One block per shard: otherwise Ray packs the small spec rows into one block and one task.
    plan = ray.data.from_items(rows, override_num_blocks=len(rows))
    written = plan.map_batches(writer, batch_size=1, num_cpus=1)
    return [json.loads(row["summary"]) for row in written.take_all()]


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


def _stamp(file: Path) -> list[int] | None:
    try:
        status = file.stat()
    except (OSError, ValueError):
        return None  # the reader names what is wrong with it
    return [status.st_size, status.st_mtime_ns]


def _prune(writer: _ShardWriter, wanted: set[str]) -> None:
    """Delete shards of an earlier, larger plan and what a killed writer left; nothing else."""
    for split in SPLITS:
        selector = fs.FileSelector(f"{writer.out}/{split}", allow_not_found=True)
        for info in writer.filesystem.get_file_info(selector):
            is_shard = info.base_name.startswith("part-") and info.base_name.endswith(".parquet")
            is_temporary = info.base_name.startswith(".part-") and info.base_name.endswith(".tmp")
            if is_temporary or (is_shard and f"{split}/{info.base_name}" not in wanted):
                logger.info("removing %s: not part of this data set", info.path)
                writer.filesystem.delete_file(info.path)


def _check_usable(folder: EmoSetFolder, summaries: list[dict[str, Any]]) -> None:
    reasons = Counter(Rejected(*row).reason for summary in summaries for row in summary["rejected"])
    why = f"rejected: {', '.join(f'{count} {reason}' for reason, count in sorted(reasons.items()))}"
    for split in SPLITS:
        if not any(summary["rows"] for summary in summaries if summary["split"] == split):
            raise ValueError(f"{folder.root}: no usable image in {split}.json ({why})")
    train = {name for s in summaries if s["split"] == "train" for name in s["emotions"]}
    missing = [emotion for emotion in EMOTIONS if emotion not in train]
    if missing:
        raise ValueError(f"{folder.root}: no usable training image of {', '.join(missing)} ({why})")


def _result(folder: EmoSetFolder, summaries: list[dict[str, Any]]) -> IngestResult:
    ordered = sorted(summaries, key=lambda summary: (SPLITS.index(summary["split"]), summary["name"]))
    rejected = [*folder.duplicates, *(Rejected(*row) for summary in ordered for row in summary["rejected"])]
    counts = Counter[str]()
    for summary in ordered:
        counts[summary["split"]] += summary["rows"]
    with_scene, with_object = (
        sum(summary[key] for summary in ordered) for key in ("with_scene", "with_object")
    )
    return IngestResult(
        counts={split: counts[split] for split in SPLITS},
        rejected_counts=dict(sorted(Counter(str(item.reason) for item in rejected).items())),
        rejected=tuple(rejected),
        scenes=folder.names.scenes or _collected(ordered, "scenes"),
        objects=folder.names.objects or _collected(ordered, "objects"),
        with_scene=with_scene,
        with_object=with_object,
        shards=len(ordered),
        skipped=sum(summary["is_skipped"] for summary in ordered),
        notes=(*folder.notes, *attribute_notes(with_scene, with_object)),
    )


def _collected(summaries: list[dict[str, Any]], key: str) -> tuple[str, ...]:
    return tuple(sorted({name for summary in summaries for name in summary[key]}))
