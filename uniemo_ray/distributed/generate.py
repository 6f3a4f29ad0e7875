"""Plan to images, images to scores: actor pools over shards, tried again where they fail.

Images never pass through the driver: it writes the plan, follows counts, and reads back one column.
"""

from collections import Counter
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from uniemo_ray.config import EncoderConfig, GenerationConfig, ResourceConfig
from uniemo_ray.distributed.actors.clip import ScoreActor
from uniemo_ray.distributed.actors.diffusion import GenerateActor
from uniemo_ray.distributed.map_shards import map_shards
from uniemo_ray.feedback.schema import PLAN, require_columns
from uniemo_ray.inference.painter import check_threads
from uniemo_ray.store.base import Store
from uniemo_ray.store.fingerprint import fingerprint
from uniemo_ray.store.shards import commit_shard, committed, shard_paths

PLAN_FOLDER, IMAGES_FOLDER, SCORES_FOLDER = "plan", "images", "scores"


class MappedShards(NamedTuple):
    """What lies in a folder of result shards."""

    rows: int
    """All rows, also those that failed."""
    failed: dict[str, int]
    """Rows without a result, by reason."""
    plan_hash: str
    """What the shards were made for."""
    rows_per_second_and_actor: float
    """By the actors' own clocks, from reading a shard to having committed it."""


def generate_images(
    plan: pa.Table, *, store: Store, model: str, config: GenerationConfig, resources: ResourceConfig
) -> MappedShards:
    """Generate a plan's images into `images/part-NNNNN`; what is committed there already is kept.

    Args:
        plan: PLAN rows.
        store: gets `plan/` and `images/`.
        model: model folder, readable on every worker.
        config: rows per shard, actors, threads, retries.
        resources: what an actor reserves.

    Raises:
        ValueError: for a plan that cannot be generated reproducibly, or of which no row could be; or
            when the store holds shards of another plan.
        RuntimeError: when a shard still fails after all retries.
    """
    _check(plan, config)
    plan_hash = fingerprint({"plan": plan.to_pylist(), "rows_per_shard": config.rows_per_shard})
    for number, start in enumerate(range(0, plan.num_rows, config.rows_per_shard)):
        part = plan.slice(start, config.rows_per_shard)
        commit_shard(store, f"{PLAN_FOLDER}/part-{number:05d}", part, plan_hash=plan_hash)
    # an actor computes on as many threads as its images' bytes were planned for
    reserved = {"actors": config.actors, "cpus_per_worker": max(config.threads, resources.cpus_per_worker)}

    map_shards(
        store,
        {IMAGES_FOLDER: PLAN_FOLDER},
        target=store,
        actor=GenerateActor,
        settings={"model": model, "threads": config.threads},
        plan_hash=plan_hash,
        resources=resources.model_copy(update=reserved),
        retries=config.retries,
    )
    result = _summary(store, IMAGES_FOLDER, plan_hash)
    if sum(result.failed.values()) == result.rows:
        reason, count = max(result.failed.items(), key=lambda item: item[1])
        raise ValueError(f"none of {result.rows} images could be generated; {count} times: {reason}")
    return result


def score_images(
    *,
    images: Store,
    store: Store,
    encoder: EncoderConfig,
    heads: str,
    plan_hash: str,
    resources: ResourceConfig,
    retries: int = 2,
) -> MappedShards:
    """Score the shards of `images/` into `scores/` of another store, under the same names.

    Args:
        images: store with the image shards.
        store: gets `scores/`.
        encoder: names the frozen CLIP.
        heads: folder of the scorers, readable on every worker.
        plan_hash: stands for the images and the scorers.
        resources: size of the pool and what an actor reserves.
        retries: how often failed shards are tried again.

    Raises:
        RuntimeError: when a shard still fails after all retries.
    """
    map_shards(
        images,
        {SCORES_FOLDER: IMAGES_FOLDER},
        target=store,
        actor=ScoreActor,
        settings={"clip": encoder.clip, "pretrained": encoder.clip_pretrained, "heads": heads},
        plan_hash=plan_hash,
        resources=resources,
        retries=retries,
    )
    return _summary(store, SCORES_FOLDER, plan_hash)


def _check(plan: pa.Table, config: GenerationConfig) -> None:
    """Refuse before any actor starts what every actor would refuse."""
    require_columns(plan, PLAN, name="plan")
    if not plan.num_rows:
        raise ValueError("expected a plan with at least one image, got none")
    if repeated := plan.num_rows - pc.count_distinct(plan["image_id"]).as_py():
        raise ValueError(f"image ids of a plan must be distinct, {repeated} rows repeat one")
    threads = set(plan["threads"].to_pylist())
    if threads != {config.threads}:
        raise ValueError(f"the plan is for threads {sorted(threads)}, generation.threads is {config.threads}")
    for micro_batch in set(plan["micro_batch"].to_pylist()):
        check_threads(micro_batch, config.threads)


def _summary(store: Store, folder: str, plan_hash: str) -> MappedShards:
    entries = committed(store, f"{folder}/").values()
    if others := {entry.plan_hash for entry in entries} - {plan_hash}:
        raise ValueError(
            f"{store.uri}/{folder} holds shards of another plan ({others.pop()[:12]}): choose an empty folder"
        )
    filesystem, _ = store.arrow()
    shards = pyarrow.dataset.dataset(
        shard_paths(store, f"{folder}/"), filesystem=filesystem, format="parquet"
    )
    reasons = shards.to_table(columns=["reason"])["reason"].to_pylist()
    seconds = sum(entry.seconds for entry in entries)
    return MappedShards(
        rows=len(reasons),
        failed=dict(Counter(reason for reason in reasons if reason is not None)),
        plan_hash=plan_hash,
        rows_per_second_and_actor=len(reasons) / seconds if seconds else 0.0,
    )
