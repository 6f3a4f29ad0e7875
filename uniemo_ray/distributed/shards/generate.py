"""Plan to images, images to scores: actor pools over shards, tried again where they fail.

Images never pass through the driver: it writes the plan and follows counts.
"""

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import pyarrow as pa

from uniemo_ray.config import GenerationConfig, check_threads
from uniemo_ray.distributed.shards.actors.clip import ScoreActor
from uniemo_ray.distributed.shards.actors.diffusion import GenerateActor
from uniemo_ray.distributed.shards.map_shards import map_shards
from uniemo_ray.distributed.shards.scoring import SCORES_FOLDER, HandOn, Scoring, scored_already
from uniemo_ray.distributed.shards.table_actor import ActorFactory
from uniemo_ray.feedback.plan import ImagePlan, TablePlan
from uniemo_ray.feedback.plan_shards import IMAGES_FOLDER, PLAN_FOLDER, commit_plan
from uniemo_ray.inference.rendering import Rendering
from uniemo_ray.pools import Pool
from uniemo_ray.store.base import Store
from uniemo_ray.store.shards import committed


class MappedShards(NamedTuple):
    """What lies in a folder of result shards."""

    rows: int
    """All rows, also those that failed."""
    failed: dict[str, int]
    """Rows without a result, by reason."""
    rows_per_second_and_actor: float
    """Rate by the actors' own clocks, from reading a shard to having committed it."""


def generate_images(
    plan: ImagePlan | pa.Table,
    *,
    store: Store,
    model: str,
    config: GenerationConfig,
    pool: Pool,
    actor: ActorFactory | None = None,
    scoring: Scoring | None = None,
) -> MappedShards:
    """Generate a plan's images into `images/part-NNNNN`; what is committed there already is kept.

    A plan that begins with the one that was generated before adds to its images.

    Args:
        plan: PLAN rows.
        store: gets `plan/` and `images/`.
        model: model folder, readable on every worker.
        config: rows per shard, threads, retries.
        pool: number of actors, what each reserves, and its machines, see `find_painters`.
        actor: makes IMAGES rows of PLAN rows; by default with `model`.
        scoring: also scores the images, into `scores/part-NNNNN` beside them, for `score_images` to find.

    Raises:
        ValueError: for a plan that cannot be generated reproducibly, or of which no row could be; or
            when the store holds shards of another plan.
        RuntimeError: when a shard still fails after all retries.
    """
    plan = TablePlan(plan) if isinstance(plan, pa.Table) else plan
    _check(plan, config)
    commit_plan(plan, store, rows_per_shard=config.rows_per_shard)
    map_shards(
        store,
        {IMAGES_FOLDER: PLAN_FOLDER},
        target=store,
        actor=actor
        or partial(
            GenerateActor,
            model=model,
            threads=config.threads,
            rendering=Rendering.of(config),
            scoring=scoring,
        ),
        plan_hash=None,
        pool=pool,
        retries=config.retries,
        overlaps=True,
    )
    result = _summary(store, IMAGES_FOLDER)
    if sum(result.failed.values()) == result.rows:
        reason, count = max(result.failed.items(), key=lambda item: item[1])
        raise ValueError(f"none of {result.rows} images could be generated; {count} times: {reason}")
    return result


def score_images(
    *,
    images: Store,
    store: Store,
    scoring: Scoring,
    plan_hash: str,
    pool: Pool,
    retries: int = 2,
) -> MappedShards:
    """Score the shards of `images/` into `scores/` of another store, under the same names.

    Scores that were made beside the images are taken over: then no image is read.

    Args:
        images: store with the image shards.
        store: gets `scores/`.
        scoring: the scorers.
        plan_hash: stands for the images and the scorers.
        pool: number of actors, what each reserves, and its machines.
        retries: how often failed shards are tried again.

    Raises:
        RuntimeError: when a shard still fails after all retries.
    """
    map_scores = partial(map_shards, images, target=store, plan_hash=plan_hash, retries=retries)
    if names := scored_already(images, scoring):
        folders = {SCORES_FOLDER: SCORES_FOLDER}
        map_scores(folders, actor=HandOn, pool=replace(pool, gpus=0.0), as_tasks=True, only=names)
    actor = partial(ScoreActor, clip=scoring.clip, pretrained=scoring.pretrained, heads=scoring.heads)
    map_scores({SCORES_FOLDER: IMAGES_FOLDER}, actor=actor, pool=pool)
    return _summary(store, SCORES_FOLDER)


def _check(plan: ImagePlan, config: GenerationConfig) -> None:
    """Refuse before any actor starts what every actor would refuse."""
    if not plan.num_rows:
        raise ValueError("expected a plan with at least one image, got none")
    rows = plan.table if isinstance(plan, TablePlan) else plan.slice(0, 1)  # all others are alike
    threads = set(rows["threads"].to_pylist())
    if threads != {config.threads}:
        raise ValueError(f"the plan is for threads {sorted(threads)}, generation.threads is {config.threads}")
    for micro_batch in set(rows["micro_batch"].to_pylist()):
        check_threads(micro_batch, config.threads)


def _summary(store: Store, folder: str) -> MappedShards:
    """From the manifest alone: the shards themselves may be ten thousand."""
    entries = committed(store, f"{folder}/").values()
    failed: Counter[str] = Counter()
    for entry in entries:
        failed.update(entry.failed)
    rows, seconds = sum(entry.rows for entry in entries), sum(entry.seconds for entry in entries)
    return MappedShards(
        rows=rows, failed=dict(failed), rows_per_second_and_actor=rows / seconds if seconds else 0.0
    )
