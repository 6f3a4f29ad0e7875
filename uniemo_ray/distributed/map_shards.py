"""Shard in, shard out: run an actor over Parquet shards and commit each result under the same name.

What is committed is skipped, so a run that is submitted again goes on where it stopped, and an actor
that dies costs at most the shard it was working on.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from uniemo_ray.config import ResourceConfig
from uniemo_ray.store.base import Store
from uniemo_ray.store.shards import commit_shard, committed

logger = logging.getLogger(__name__)
PROGRESS_EVERY_S = 5.0


class TableActor(Protocol):
    """Loads in `__init__`, then turns tables into tables."""

    def __call__(self, table: pa.Table) -> pa.Table:
        """Rows in, rows out."""
        ...


class _ShardMapper:
    """What an actor of the pool runs: read a shard, transform it, commit it, report a small row."""

    def __init__(
        self, make: Callable[..., TableActor], settings: Mapping[str, Any], source: Store, target: Store
    ) -> None:
        self.actor = make(**settings)
        self.source, self.target = source, target

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        rows = [
            self.map(str(key), str(name), str(plan))
            for key, name, plan in zip(batch["key"], batch["name"], batch["plan"], strict=True)
        ]
        return {"rows": np.array(rows, dtype=np.int64)}

    def map(self, key: str, name: str, plan: str) -> int:
        started = time.monotonic()
        filesystem, root = self.source.arrow()
        with filesystem.open_input_file(f"{root}/{key}") as file:
            table = pq.read_table(file)
        result = self.actor(table)
        commit_shard(self.target, name, result, plan_hash=plan, seconds=time.monotonic() - started)
        return int(result.num_rows)


def map_shards(
    source: Store,
    folders: Mapping[str, str],
    *,
    target: Store,
    actor: Callable[..., TableActor],
    settings: Mapping[str, Any],
    plan_hash: str,
    resources: ResourceConfig,
) -> dict[str, int]:
    """Map all Parquet shards of some folders into folders of `target`; returns the rows of each.

    Args:
        source: store of the input shards.
        folders: folder of the results to folder of the input shards; shards keep their names.
        target: store of the results.
        actor: class whose instances are `TableActor`; importable on the workers.
        settings: keyword arguments of that class, plain JSON; `device` is added.
        plan_hash: what the results are made for; results of another plan are refused.
        resources: size of the pool and what an actor reserves.

    Raises:
        FileNotFoundError: a folder without input shards.
    """
    done = {folder: committed(target, f"{folder}/") for folder in folders}
    todo = []
    for folder, prefix in folders.items():
        names = _names(source, prefix, folder)
        todo += [
            {"key": key, "name": name, "plan": plan_hash}
            for key, name in names.items()
            if name not in done[folder]
        ]
        if done[folder]:
            logger.info("%s: %d of %d shards are there", folder, len(done[folder]), len(names))
    if todo:
        where = {"device": "cuda" if resources.use_gpu else "cpu"}
        _map(todo, (actor, {**settings, **where}, source, target), resources)
        done = {folder: committed(target, f"{folder}/") for folder in folders}
    return {folder: sum(entry.rows for entry in entries.values()) for folder, entries in done.items()}


def _names(source: Store, prefix: str, folder: str) -> dict[str, str]:
    """Input key to name of the result."""
    keys = [key for key in source.list(prefix) if key.endswith(".parquet")]
    if not keys:
        raise FileNotFoundError(f"no Parquet shards below {source.uri}/{prefix}")
    return {key: f"{folder}/{key.rpartition('/')[2].removesuffix('.parquet')}" for key in keys}


def _map(todo: list[dict[str, str]], arguments: tuple[Any, ...], resources: ResourceConfig) -> None:
    # One block per shard: otherwise Ray packs the small spec rows into one block, and one actor works.
    plan = ray.data.from_items(todo, override_num_blocks=len(todo))
    results = plan.map_batches(
        _ShardMapper,
        fn_constructor_args=arguments,
        compute=ray.data.ActorPoolStrategy(size=min(resources.actors, len(todo))),
        batch_size=1,
        num_cpus=resources.cpus_per_worker,
        num_gpus=1 if resources.use_gpu else 0,
        memory=int(resources.memory_gb_per_actor * 2**30),
    )
    _follow(results.iter_rows(), shards=len(todo))


def _follow(results: Iterable[Mapping[str, Any]], *, shards: int) -> None:
    """A progress line every few seconds, as shards are committed."""
    started = shown = time.monotonic()
    rows = 0
    for done, row in enumerate(results, start=1):
        rows += int(row["rows"])
        now = time.monotonic()
        if now - shown >= PROGRESS_EVERY_S or done == shards:
            shown, seconds = now, now - started
            left_s = int(seconds / done * (shards - done))
            progress = f"{done}/{shards} shards, {rows} rows, {rows / seconds:.0f} rows/s"
            logger.info("%s, ETA %d:%02d", progress, left_s // 60, left_s % 60)
