"""The dual-metric filter (Algorithm 1) on score shards of any number: exact, in bounded memory, resumable.

`filter_shards` is the entry; on a cluster, `distributed.ranking.filter_scores` calls it.

First all image ids are ranked, which finds repeated ones and turns ties between equal scores into a
comparison of integers; then the rows are ranked by each criterion; then each chunk of shards is judged alone.
No step holds more rows than `rows_per_task` (or than one shard, if that is larger).
"""

import logging
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial, reduce

import numpy as np
import pyarrow as pa

from uniemo_ray.config import FilterConfig
from uniemo_ray.feedback.ranking.chunk_ranking import ChunkRanking, Layout, Runner, in_turn, rank_chunks
from uniemo_ray.feedback.ranking.score_chunks import Chunk, Keys, id_keys, make_chunks, read_chunk, score_keys
from uniemo_ray.feedback.ranking.scratch import once
from uniemo_ray.feedback.verdicts import (
    NEEDED,
    Band,
    FilterSummary,
    Tally,
    judge,
    rank_band,
    read_scores,
    summarise,
    used_criteria,
)
from uniemo_ray.store.base import Store
from uniemo_ray.store.errors import StoreError
from uniemo_ray.store.fingerprint import fingerprint
from uniemo_ray.store.record import library_versions
from uniemo_ray.store.shards import ShardEntry, commit_shard, committed, seal_manifest

logger = logging.getLogger(__name__)
KEPT_FOLDER = "kept"
SUMMARY_FILE = f"{KEPT_FOLDER}/summary.json"
SCRATCH_FOLDER = "filter-scratch"
ROWS_PER_TASK = 4_000_000
"""Takes a process less than 1 GB when image ids have some 20 characters."""
_MOST_ROWS = 1 << 32
"""Ranks have 32 bits while they are found."""
_SCRATCH_FORMAT = 1
"""Raise it when interim results change their form or meaning: those of an older release are not read then."""
_JUDGED = "judged"
_DELETERS = 16


@dataclass(frozen=True)
class _ReadIds:
    """Keys of the first ranking, by image id."""

    source: Store

    def __call__(self, chunk: Chunk) -> Mapping[str, Keys]:
        return id_keys(read_chunk(self.source, chunk, ["image_id", "emotion"]))


@dataclass(frozen=True)
class _ReadScores:
    """Keys of the second rankings, one for each criterion and group."""

    source: Store
    config: FilterConfig
    ids: ChunkRanking
    id_layout: Layout

    def __call__(self, chunk: Chunk) -> Mapping[str, Keys]:
        columns = [name for name in NEEDED.names if name != "image_id"]
        rows = read_scores(read_chunk(self.source, chunk, columns), self.config)
        id_ranks = self.ids.row_ranks(chunk, self.id_layout, ["id"])
        found = {}
        for name, values in rows.values.items():
            keys = pa.array(score_keys(values, id_ranks))
            for group in rows.groups:
                found[_ranking(name, group)] = Keys(keys, rows.members(group).astype(np.uint32))
        return found


@dataclass(frozen=True)
class _ShardFilter:
    """One filter run."""

    source: Store
    target: Store
    folder: str
    config: FilterConfig
    plan_hash: str
    rows_per_task: int

    @property
    def scratch(self) -> Store:
        """Other chunks have other interim results, but the same verdicts."""
        settings = {"format": _SCRATCH_FORMAT, "plan": self.plan_hash, "rows_per_task": self.rows_per_task}
        own = fingerprint(settings)
        return self.target.sub(f"{SCRATCH_FOLDER}/{own[:16]}")

    def run(self, chunks: list[Chunk], run: Runner) -> FilterSummary:
        """Rank, judge and summarise."""
        size = {"chunks": len(chunks), "limit": self.rows_per_task}
        read_ids = _ReadIds(self.source)
        ids = ChunkRanking(self.scratch.sub("ids"), read_ids, key_type=pa.large_string(), **size)
        logger.info("filter: ranking the image ids of %d chunks", len(chunks))
        id_layout = rank_chunks(ids, chunks, run)

        read_scores_ = _ReadScores(self.source, self.config, ids, id_layout)
        scores = ChunkRanking(self.scratch.sub("scores"), read_scores_, key_type=pa.uint64(), **size)
        logger.info("filter: ranking the scores of %d images", id_layout.sizes["id"])
        layout = rank_chunks(scores, chunks, run)

        logger.info("filter: judging")
        tally = reduce(Tally.merge, run(partial(self.judge, scores=scores, layout=layout), chunks))
        sizes = self.sizes(next(iter(tally.edges.values())), layout)
        return summarise(tally, sizes, self.bands(sizes))

    def judge(self, chunk: Chunk, scores: ChunkRanking, layout: Layout) -> Tally:
        """Bring both ranks of a chunk's rows together and commit its verdicts."""
        record = once(
            self.scratch, f"{_JUDGED}/{chunk.number:05d}", lambda: asdict(self._judge(chunk, scores, layout))
        )
        return Tally(**record)

    def _judge(self, chunk: Chunk, scores: ChunkRanking, layout: Layout) -> Tally:
        started = time.monotonic()
        table = read_chunk(self.source, chunk, NEEDED.names)
        rows = read_scores(table, self.config)
        ranks = {
            name: scores.row_ranks(chunk, layout, [_ranking(name, group) for group in rows.groups])
            for name in rows.values
        }
        kept, tally = judge(table, rows, ranks, self.bands(self.sizes(rows.groups, layout)))
        commit = partial(commit_shard, self.target, plan_hash=self.plan_hash, versions=library_versions())
        seconds, start = (time.monotonic() - started) / len(chunk.shards), 0
        for shard in chunk.shards:
            part = kept.slice(start, shard.rows)
            commit(_kept_name(shard.name, self.folder), part, seconds=seconds)
            start += shard.rows
        return tally

    def sizes(self, groups: Iterable[str], layout: Layout) -> dict[str, int]:
        """Ranked rows of some groups."""
        first, *_ = used_criteria(self.config)  # all criteria rank the same rows
        return {group: layout.sizes.get(_ranking(first, group), 0) for group in groups}

    def bands(self, sizes: Mapping[str, int]) -> dict[str, Band]:
        """The band of each group."""
        config = self.config
        return {group: rank_band(m, eta=config.eta, delta=config.delta) for group, m in sizes.items()}

    def is_complete(self, names: Iterable[str]) -> bool:
        """Whether all verdicts are committed.

        Raises:
            ValueError: verdicts of another plan.
        """
        found = committed(self.target, f"{KEPT_FOLDER}/")
        if any(entry.plan_hash != self.plan_hash for entry in found.values()):
            raise ValueError(
                f"{self.target.uri}/{KEPT_FOLDER} holds verdicts on other scores or by other settings: "
                "choose an empty folder"
            )
        return all(_kept_name(name, self.folder) in found for name in names)


def filter_shards(
    source: Store,
    target: Store,
    *,
    config: FilterConfig,
    folder: str = "scores",
    rows_per_task: int = ROWS_PER_TASK,
    run: Runner = in_turn,
) -> FilterSummary:
    """Rank the rows of a folder of score shards by each criterion, and commit a verdict on each row.

    The best row of a criterion has rank 0; ties are ordered by ascending image id. A row is ranked when it
    has no `reason` and every criterion's score is finite; other rows are rejected as `not_scored` or
    `non_finite`. A ranked row is kept when it lies inside the band of every criterion. Otherwise it is
    rejected as `emo_too_high_rank`, `emo_too_low_rank`, `sem_too_high_rank` or `sem_too_low_rank` ("high"
    is better than the band): the first that applies in this order.

    Row i of `kept/part-NNNNN` (KEPT) speaks of row i of `scores/part-NNNNN`. What an interrupted call has
    done is not done again; after a finished one, a call returns its summary. Interim results lie in
    `filter-scratch/` of the target until all verdicts are there.

    Args:
        source: store with the committed shards, SCORES rows in any order.
        target: gets `kept/` and `kept/summary.json`.
        config: band, scope and criteria.
        folder: where the shards lie in `source`.
        rows_per_task: most rows that one task holds. The result does not depend on it; fewer rows make
            more and smaller interim pieces, with the square of their number.
        run: how the pieces of work are run.

    Returns:
        The summary.

    Raises:
        FileNotFoundError: no committed shards.
        ValueError: shards that hold no scores, an image id that is null or occurs twice, more than 2^32
            rows, or a target with verdicts on other scores or by other settings.
        StoreError: storage failed, or a shard is damaged.
    """
    seal_manifest(target)
    entries = committed(source, f"{folder}/")
    _check(entries, rows_per_task, where=f"{source.uri}/{folder}")
    hashes = {name: entry.sha256 for name, entry in entries.items()}
    plan_hash = fingerprint({"filter": config, "scores": hashes})
    job = _ShardFilter(source, target, folder, config, plan_hash, rows_per_task)
    is_complete = job.is_complete(entries)
    if target.exists(SUMMARY_FILE):
        _clear(target.sub(SCRATCH_FOLDER))  # a run that finished may have died while clearing
        if is_complete:
            logger.info("filter: nothing to do, %d shards of verdicts are there", len(entries))
            return FilterSummary.from_dict(target.read_json(SUMMARY_FILE))
        target.delete(SUMMARY_FILE)
    chunks = make_chunks(entries.values(), limit=rows_per_task)
    summary = job.run(chunks, run)
    if not job.is_complete(entries):
        # recorded by a driver that had been followed before, so that its verdicts do not count
        logger.info("filter: some verdicts are not listed, all are judged again")
        _clear(job.scratch.sub(_JUDGED))
        summary = job.run(chunks, run)
    if not job.is_complete(entries):
        raise StoreError(f"verdicts have gone from {target.uri}/{KEPT_FOLDER}: delete {job.scratch.uri}")
    target.check_fence()
    target.write_json(SUMMARY_FILE, summary.to_dict())
    _clear(target.sub(SCRATCH_FOLDER))
    return summary


def _check(entries: Mapping[str, ShardEntry], rows_per_task: int, *, where: str) -> None:
    if not entries:
        raise FileNotFoundError(f"no committed shards in {where}")
    if rows_per_task < 1:
        raise ValueError(f"rows_per_task must be at least 1, got {rows_per_task}")
    if (rows := sum(entry.rows for entry in entries.values())) > _MOST_ROWS:
        raise ValueError(f"{where} has {rows} rows, expected at most {_MOST_ROWS}")


def _clear(scratch: Store) -> None:
    with ThreadPoolExecutor(_DELETERS) as pool:
        list(pool.map(scratch.delete, scratch.list()))


def _ranking(criterion: str, group: str) -> str:
    return f"{criterion}/{group}"


def _kept_name(name: str, folder: str) -> str:
    return f"{KEPT_FOLDER}/{name.removeprefix(f'{folder}/')}"
