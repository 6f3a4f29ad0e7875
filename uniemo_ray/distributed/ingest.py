"""From a data folder to canonical Parquet shards, by the protocol of all other shards.

The driver commits what each shard is made from below `plan/`; tasks read the images and commit the samples
under the same names. So a finished shard of the same content is skipped, and an image that kills
its reader is rejected with a reason.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from uniemo_ray.config import MAX_PIXELS, SPLITS, Config
from uniemo_ray.data.bucket import is_bucket
from uniemo_ray.data.check import attribute_notes
from uniemo_ray.data.duplicates import CONTENT, Duplicate, describe, find_duplicates
from uniemo_ray.data.emoset import EmoSetFolder
from uniemo_ray.data.folder import DataFolder
from uniemo_ray.data.sample_reader import SampleReader
from uniemo_ray.data.sample_shards import ShardSummary, read_summary
from uniemo_ray.data.samples import Entry, Rejected, resolve_image
from uniemo_ray.data.shards import FileStamps, PlannedShard, ShardLimits, plan_shards
from uniemo_ray.distributed.shards.actors.samples import SampleActor
from uniemo_ray.distributed.shards.map_shards import map_shards
from uniemo_ray.distributed.shards.table_actor import TableActor
from uniemo_ray.emotions import SENTIMENT, LabelSpace
from uniemo_ray.pools import Pool, find_pool
from uniemo_ray.store import faults
from uniemo_ray.store.base import Store
from uniemo_ray.store.errors import REPAIR, REPAIR_MISSING, DamagedError
from uniemo_ray.store.shards import ShardEntry, commit_shard, committed, drop_shards, seal_manifest

logger = logging.getLogger(__name__)
LIMITS = ShardLimits(4000, 512 << 20)
PLAN_FOLDER, SAMPLES_FOLDER = "plan", "samples"
_AT_ONCE = 16
"""Small files that are written or read at a time: on S3 each costs a few round trips."""


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
    files: tuple[ShardEntry, ...]
    """Shards of the data set, by split and number."""
    skipped: int
    """Shards found finished."""
    notes: tuple[str, ...]
    """What a user should know, such as attributes that the set lacks."""

    @property
    def shards(self) -> int:
        """Number of shards."""
        return len(self.files)


class _Shard(NamedTuple):
    """A committed shard without its images."""

    summary: ShardSummary
    content: pa.Table
    """Rows of schema `CONTENT`."""


def ingest_folder(
    root: str | Path,
    store: Store,
    *,
    source: str,
    reader: Callable[[str | Path], DataFolder] = EmoSetFolder,
    max_pixels: int = MAX_PIXELS,
    limits: ShardLimits = LIMITS,
    pool: Pool | None = None,
    prepare: Callable[[], object] | None = None,
    by_valence: bool = False,
    actor: Callable[..., TableActor] = SampleActor,
) -> IngestResult:
    """Read a data folder into the shards `samples/SPLIT/part-00000` and so on of a store.

    Shards hold the entries of a split in the order of a hash of their image ids, without the rejected
    ones; so shards are mixed and do not depend on what is rejected.

    Args:
        root: Data folder, visible under this path on every node (after `prepare`), or in a bucket.
        store: Gets `plan/` and `samples/`.
        source: Name of the data set, for the column `source`.
        reader: Reads the folder's structure.
        max_pixels: Larger images are rejected.
        limits: When a shard is full.
        pool: Memory of a task, and its machines; each has one CPU.
        prepare: Called by every task first, for a folder that each node makes for itself.
        by_valence: Whether samples are labelled positive and negative instead of with their own label.
        actor: Makes READ rows of PLAN rows, from a `SampleReader` and `prepare`.

    Returns:
        Counts, rejected entries, duplicates and the attribute base.

    Raises:
        FolderError: one line per structural fault, before Ray does anything.
        ValueError: where every training image of an emotion, or every image of a split, is rejected.
        SupersededError: this driver is superseded.
        DamagedError: a listed shard is missing or torn.
    """
    folder = reader(root)
    local = folder.root.absolute()  # of a data set in a bucket, its outline
    given = str(root) if is_bucket(root) else str(local)
    stamps = FileStamps(local)
    plan = partial(plan_shards, root=local, limits=limits, stamps=stamps)
    entries_by_split = {split: _located(folder.entries(split), local, given) for split in SPLITS}
    shards = [shard for split, entries in entries_by_split.items() for shard in plan(entries, split)]
    labels = folder.space.labels
    valence_of, space = (folder.space, SENTIMENT) if by_valence else (None, folder.space)
    samples = SampleReader(given, folder.names, labels, source, max_pixels, valence_of)
    skipped = _commit_plan(shards, samples, store, stamps)
    splits = [split for split in SPLITS if any(shard.split == split for shard in shards)]
    map_shards(
        store,
        {f"{SAMPLES_FOLDER}/{split}": f"{PLAN_FOLDER}/{split}" for split in splits},
        target=store,
        actor=partial(actor, samples, prepare),
        plan_hash=None,
        pool=replace(pool or find_pool(Config(), "data"), cpus=1, gpus=0.0),
        as_tasks=True,
    )
    entries = committed(store, f"{SAMPLES_FOLDER}/")
    files = tuple(entries[f"{SAMPLES_FOLDER}/{shard.name}"] for shard in shards)
    found = _read_back(store, files)
    summaries = [shard.summary for shard in found]
    _check_usable(given, space, summaries)
    duplicates = find_duplicates(pa.concat_tables([shard.content for shard in found]))
    return _result(folder, space, summaries, duplicates=duplicates, files=files, skipped=skipped)


def _commit_plan(
    shards: Sequence[PlannedShard], reader: SampleReader, store: Store, stamps: FileStamps
) -> int:
    """Commit what the shards are made from; shards of other content go. Returns how many are finished."""
    seal_manifest(store)  # first, so that no superseded driver can list what is dropped here
    hashes = {shard.name: reader.fingerprint(shard.split, shard.entries, stamps=stamps) for shard in shards}
    for folder in (SAMPLES_FOLDER, PLAN_FOLDER):
        drop_shards(store, folder, keep={f"{folder}/{name}": digest for name, digest in hashes.items()})
    planned = committed(store, f"{PLAN_FOLDER}/")

    def commit(shard: PlannedShard) -> None:
        name = f"{PLAN_FOLDER}/{shard.name}"
        if name not in planned:
            commit_shard(store, name, shard.table(), plan_hash=hashes[shard.name])

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(commit, shards))
    faults.reach("planned")
    return len(committed(store, f"{SAMPLES_FOLDER}/"))


def _read_back(store: Store, entries: Sequence[ShardEntry]) -> list[_Shard]:
    """Summary, ids, labels and digests of shards; their images are not read."""
    filesystem, root = store.arrow()

    def read(entry: ShardEntry) -> _Shard:
        where = f"{store.uri}/{entry.key}"
        try:
            with pq.ParquetFile(f"{root}/{entry.key}", filesystem=filesystem) as file:
                table = file.read(columns=CONTENT.names)
                summary = read_summary(file.schema_arrow)
        except FileNotFoundError:
            raise DamagedError(f"{where} is listed but missing: {REPAIR_MISSING}") from None
        except ValueError as error:
            raise DamagedError(f"{where} is no whole shard ({error}): {REPAIR}") from None
        return _Shard(summary, table.replace_schema_metadata(None).cast(CONTENT))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(read, entries))


def _located(entries: Sequence[Entry], outline: Path, root: str) -> list[Entry]:
    """Entries of a bucket with the endings of their files, which no task can look for there."""
    if not is_bucket(root):
        return list(entries)
    return [entry._replace(image=resolve_image(outline, entry)) for entry in entries]


def _check_usable(root: str, space: LabelSpace, summaries: Sequence[ShardSummary]) -> None:
    reasons = Counter(item.reason for summary in summaries for item in summary.rejected)
    why = f"rejected: {', '.join(f'{count} {reason}' for reason, count in sorted(reasons.items()))}"
    for split in SPLITS:
        if not any(summary.rows for summary in summaries if summary.split == split):
            raise ValueError(f"{root}: no usable image in the split {split} ({why})")
    train = {name for summary in summaries if summary.split == "train" for name in summary.emotions}
    missing = [label for label in space.labels if label not in train]
    if missing:
        raise ValueError(f"{root}: no usable training image of {', '.join(missing)} ({why})")


def _result(
    folder: DataFolder,
    space: LabelSpace,
    summaries: Sequence[ShardSummary],
    *,
    duplicates: tuple[Duplicate, ...],
    files: tuple[ShardEntry, ...],
    skipped: int,
) -> IngestResult:
    rejected = (*folder.refused, *(item for summary in summaries for item in summary.rejected))
    counts = Counter[str]()
    for summary in summaries:
        counts[summary.split] += summary.rows
    with_scene = sum(summary.with_scene for summary in summaries)
    with_object = sum(summary.with_object for summary in summaries)
    return IngestResult(
        space=space,
        counts={split: counts[split] for split in SPLITS},
        rejected_counts=dict(sorted(Counter(str(item.reason) for item in rejected).items())),
        rejected=rejected,
        duplicates=duplicates,
        scenes=folder.names.scenes or _collected(summary.scenes for summary in summaries),
        objects=folder.names.objects or _collected(summary.objects for summary in summaries),
        with_scene=with_scene,
        with_object=with_object,
        files=files,
        skipped=skipped,
        notes=(*folder.notes, *attribute_notes(with_scene, with_object), *describe(duplicates)),
    )


def _collected(names: Iterable[list[str]]) -> tuple[str, ...]:
    return tuple(sorted({name for found in names for name in found}))
