"""From a data folder to canonical Parquet shards, through Ray Data.

One small spec row per shard, one map task per spec row: a task reads, checks and writes its own shard
atomically, under a stable name. So a retried task or a resubmitted run can only write the same file
again, and a finished shard of the same content is skipped by its footer.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from pyarrow import fs

from uniemo_ray.config import MAX_PIXELS, SPLITS
from uniemo_ray.data.check import attribute_notes
from uniemo_ray.data.duplicates import CONTENT, Duplicate, describe, find_duplicates
from uniemo_ray.data.emoset import EmoSetFolder
from uniemo_ray.data.folder import DataFolder
from uniemo_ray.data.samples import Rejected
from uniemo_ray.data.shards import ShardFile, ShardLimits, ShardWriter, plan_shards
from uniemo_ray.emotions import SENTIMENT, LabelSpace

logger = logging.getLogger(__name__)
LIMITS = ShardLimits(4000, 512 << 20)

Batch = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class IngestResult:
    """What became of a data folder."""

    space: LabelSpace
    """Classes of the samples: those of the set, or their valence."""
    counts: dict[str, int]
    """Samples per split."""
    rejected_counts: dict[str, int]
    """Entries without a sample, per reason."""
    rejected: tuple[Rejected, ...]
    """Every one of them: what the folder refused, then by split and shard."""
    duplicates: tuple[Duplicate, ...]
    """Samples with the same bytes; they stay."""
    scenes: tuple[str, ...]
    """Attribute base: names of info.json in its order, or those of the annotations, sorted."""
    objects: tuple[str, ...]
    with_scene: int
    """Samples, over all splits, that carry a scene."""
    with_object: int
    """Samples, over all splits, that carry an object."""
    files: tuple[ShardFile, ...]
    """Shards of the data set, in order."""
    skipped: int
    """Shards found finished."""
    notes: tuple[str, ...]
    """What a user should know, such as attributes that the set lacks."""

    @property
    def shards(self) -> int:
        """Number of shards."""
        return len(self.files)


def ingest_folder(
    root: str | Path,
    out: str,
    *,
    source: str,
    reader: Callable[[str | Path], DataFolder] = EmoSetFolder,
    max_pixels: int = MAX_PIXELS,
    limits: ShardLimits = LIMITS,
    filesystem: fs.FileSystem | None = None,
    prepare: Callable[[], object] | None = None,
    by_valence: bool = False,
) -> IngestResult:
    """Read a data folder into `out/{split}/part-00000.parquet` and so on.

    Shards hold the entries of a split in the order of a hash of their image ids, without the rejected
    ones; so shards are mixed and do not depend on what is rejected.

    Args:
        root: Data folder, visible under this path on every node (after `prepare`).
        out: Target folder inside `filesystem`.
        source: Name of the data set, for the column `source`.
        reader: Reads the folder's structure.
        max_pixels: Larger images are rejected.
        limits: When a shard is full.
        filesystem: Where `out` lies; the local (or shared) disk when left out.
        prepare: Called by every task first, for a folder that each node makes for itself.
        by_valence: Whether samples are labelled positive and negative instead of with their own label.

    Returns:
        Counts, rejected entries, duplicates and the attribute base.

    Raises:
        FolderError: one line per structural fault, before Ray does anything.
        ValueError: where every training image of an emotion, or every image of a split, is rejected.
    """
    folder = reader(root)
    if filesystem is None:
        filesystem, out = fs.LocalFileSystem(), str(Path(out).absolute())
    root = folder.root.absolute()
    plan = partial(plan_shards, root=root, limits=limits)
    specs = [spec for split in SPLITS for spec in plan(folder.entries(split), split)]
    labels = folder.space.labels
    valence_of, space = (folder.space, SENTIMENT) if by_valence else (None, folder.space)
    writer = ShardWriter(root, out, filesystem, folder.names, labels, source, max_pixels, valence_of)
    _prune(writer, {f"{spec['split']}/{spec['name']}" for spec in specs})
    summaries = _run(writer, specs, prepare)
    _check_usable(folder, space, summaries)
    return _result(folder, space, summaries, find_duplicates(_content(writer, summaries)))


def _run(
    writer: ShardWriter, specs: list[dict[str, Any]], prepare: Callable[[], object] | None
) -> list[dict[str, Any]]:
    """Summaries of all shards, by split and name."""
    rows = [{"spec": json.dumps(spec)} for spec in specs]
    # One block per shard: otherwise Ray packs the small spec rows into one block and one task.
    plan = ray.data.from_items(rows, override_num_blocks=len(rows))
    written = plan.map_batches(
        _write_batch,  # type: ignore[arg-type]  # Ray declares no further arguments
        fn_kwargs={"writer": writer, "prepare": prepare},
        batch_size=1,
        num_cpus=1,
    )
    summaries = [json.loads(row["summary"]) for row in written.take_all()]
    return sorted(summaries, key=lambda summary: (SPLITS.index(summary["split"]), summary["name"]))


def _write_batch(batch: Batch, writer: ShardWriter, prepare: Callable[[], object] | None) -> Batch:
    """What a map task runs: one spec row in, one shard written, its summary out."""
    if prepare:
        prepare()
    summaries = [json.dumps(writer.write(json.loads(text))) for text in batch["spec"]]
    return {"summary": np.array(summaries, dtype=object)}


def _content(writer: ShardWriter, summaries: list[dict[str, Any]]) -> pa.Table:
    """Id, label and digest of every sample, read back from the shards without their images."""
    paths = [f"{writer.out}/{summary['split']}/{summary['name']}" for summary in summaries]
    tables = [pq.read_table(path, columns=CONTENT.names, filesystem=writer.filesystem) for path in paths]
    return pa.concat_tables([table.replace_schema_metadata(None).cast(CONTENT) for table in tables])


def _prune(writer: ShardWriter, wanted: set[str]) -> None:
    """Delete shards of an earlier, larger plan and what a killed writer left; nothing else."""
    for split in SPLITS:
        selector = fs.FileSelector(f"{writer.out}/{split}", allow_not_found=True)
        for info in writer.filesystem.get_file_info(selector):
            is_shard = info.base_name.startswith("part-") and info.base_name.endswith(".parquet")
            is_temporary = info.base_name.startswith(".part-") and info.base_name.endswith(".tmp")
            if is_temporary or (is_shard and f"{split}/{info.base_name}" not in wanted):
                logger.info("removing %s: not part of this data set", info.path)
                writer.filesystem.delete_file(info.path)


def _check_usable(folder: DataFolder, space: LabelSpace, summaries: list[dict[str, Any]]) -> None:
    reasons = Counter(Rejected(*row).reason for summary in summaries for row in summary["rejected"])
    why = f"rejected: {', '.join(f'{count} {reason}' for reason, count in sorted(reasons.items()))}"
    for split in SPLITS:
        if not any(summary["rows"] for summary in summaries if summary["split"] == split):
            raise ValueError(f"{folder.root}: no usable image in the split {split} ({why})")
    train = {name for s in summaries if s["split"] == "train" for name in s["emotions"]}
    missing = [label for label in space.labels if label not in train]
    if missing:
        raise ValueError(f"{folder.root}: no usable training image of {', '.join(missing)} ({why})")


def _result(
    folder: DataFolder,
    space: LabelSpace,
    summaries: list[dict[str, Any]],
    duplicates: tuple[Duplicate, ...],
) -> IngestResult:
    rejected = [*folder.refused, *(Rejected(*row) for summary in summaries for row in summary["rejected"])]
    counts = Counter[str]()
    for summary in summaries:
        counts[summary["split"]] += summary["rows"]
    with_scene, with_object = (
        sum(summary[key] for summary in summaries) for key in ("with_scene", "with_object")
    )
    return IngestResult(
        space=space,
        counts={split: counts[split] for split in SPLITS},
        rejected_counts=dict(sorted(Counter(str(item.reason) for item in rejected).items())),
        rejected=tuple(rejected),
        duplicates=duplicates,
        scenes=folder.names.scenes or _collected(summaries, "scenes"),
        objects=folder.names.objects or _collected(summaries, "objects"),
        with_scene=with_scene,
        with_object=with_object,
        files=tuple(ShardFile(*summary["file"]) for summary in summaries),
        skipped=sum(summary["is_skipped"] for summary in summaries),
        notes=(*folder.notes, *attribute_notes(with_scene, with_object), *describe(duplicates)),
    )


def _collected(summaries: list[dict[str, Any]], key: str) -> tuple[str, ...]:
    return tuple(sorted({name for summary in summaries for name in summary[key]}))
