"""Shard in, shard out: run an actor over Parquet shards and commit each result under the same name.

What is committed is skipped, so a run that is submitted again goes on where it stopped, and an actor
that dies costs at most the shard it was working on. A shard that fails is tried again after all others:
an exception never ends the pool, it comes back as a row.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
import ray.exceptions

from uniemo_ray.config import ResourceConfig
from uniemo_ray.store.base import Store
from uniemo_ray.store.shards import commit_shard, committed

logger = logging.getLogger(__name__)
PROGRESS_EVERY_S = 5.0
RETRIES = 2
"""How often failed shards are tried again."""


class TableActor(Protocol):
    """Loads in `__init__`, then turns tables into tables."""

    def __call__(self, table: pa.Table) -> pa.Table:
        """Rows in, rows out."""
        ...


class _Failure(NamedTuple):
    """What went wrong with a shard; only text leaves an actor."""

    shard: str
    kind: str
    """Name of the exception's class."""
    reason: str
    """First line of its message."""

    @staticmethod
    def of(error: Exception, shard: str) -> "_Failure":
        return _Failure(shard, type(error).__name__, (str(error).splitlines() or ["no message"])[0])


class _ShardMapper:
    """What an actor of the pool runs: read a shard, transform it, commit it, report a small row."""

    def __init__(
        self, make: Callable[..., TableActor], settings: Mapping[str, Any], source: Store, target: Store
    ) -> None:
        self.source, self.target = source, target
        self.actor: TableActor | Exception
        try:
            self.actor = make(**settings)
        except Exception as error:  # every shard will report it: a pool that cannot start says less
            logger.exception("%s cannot start", make)
            self.actor = error

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        rows = [
            self.map(str(key), str(name), str(plan))
            for key, name, plan in zip(batch["key"], batch["name"], batch["plan"], strict=True)
        ]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def map(self, key: str, name: str, plan: str) -> dict[str, Any]:
        try:
            rows, failure = self.commit(key, name, plan), _Failure(name, "", "")
        except Exception as error:
            logger.exception("%s failed", name)
            rows, failure = 0, _Failure.of(error, name)
        return {"rows": rows, **failure._asdict()}

    def commit(self, key: str, name: str, plan: str) -> int:
        if isinstance(self.actor, Exception):
            raise self.actor
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
    retries: int = RETRIES,
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
        retries: how often failed shards are tried again.

    Raises:
        FileNotFoundError: a folder without input shards.
        ValueError: raised by the actor; a wrong plan or model stays wrong, so it is not tried again.
        RuntimeError: a shard that still fails after all retries.
    """
    inputs = {folder: _names(source, prefix, folder) for folder, prefix in folders.items()}
    where = {"device": "cuda" if resources.use_gpu else "cpu"}
    arguments = (actor, {**settings, **where}, source, target)
    for attempt in range(retries + 1):
        todo = _todo(inputs, target, plan_hash)
        failures = _map(todo, arguments, resources) if todo else []
        if not failures:
            break
        _raise_if_final(failures, attempts=attempt + 1, is_last=attempt == retries)
    done = {folder: committed(target, f"{folder}/") for folder in folders}
    return {folder: sum(entry.rows for entry in entries.values()) for folder, entries in done.items()}


def _names(source: Store, prefix: str, folder: str) -> dict[str, str]:
    """Input key to name of the result."""
    keys = [key for key in source.list(prefix) if key.endswith(".parquet")]
    if not keys:
        raise FileNotFoundError(f"no Parquet shards below {source.uri}/{prefix}")
    return {key: f"{folder}/{key.rpartition('/')[2].removesuffix('.parquet')}" for key in keys}


def _todo(inputs: Mapping[str, Mapping[str, str]], target: Store, plan_hash: str) -> list[dict[str, str]]:
    """What is not committed yet, one row per shard."""
    todo = []
    for folder, names in inputs.items():
        done = committed(target, f"{folder}/")
        todo += [
            {"key": key, "name": name, "plan": plan_hash} for key, name in names.items() if name not in done
        ]
        if done:
            logger.info("%s: %d of %d shards are there", folder, len(done), len(names))
    return todo


def _map(todo: list[dict[str, str]], arguments: tuple[Any, ...], resources: ResourceConfig) -> list[_Failure]:
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
    try:
        return _follow(results.iter_rows(), shards=len(todo))
    except ray.exceptions.RayError as error:
        return [_Failure.of(error, "the actor pool")]


def _follow(results: Iterable[Mapping[str, Any]], *, shards: int) -> list[_Failure]:
    """A progress line every few seconds, as shards are committed; returns what failed."""
    started = shown = time.monotonic()
    rows, failures = 0, []
    for done, row in enumerate(results, start=1):
        rows += int(row["rows"])
        if row["kind"]:
            failures.append(_Failure(*(str(row[name]) for name in _Failure._fields)))
        now = time.monotonic()
        if now - shown >= PROGRESS_EVERY_S or done == shards:
            shown, seconds = now, now - started
            left_s = int(seconds / done * (shards - done))
            progress = f"{done}/{shards} shards, {rows} rows, {rows / seconds:.0f} rows/s"
            logger.info("%s, ETA %d:%02d", progress, left_s // 60, left_s % 60)
    return failures


def _raise_if_final(failures: list[_Failure], *, attempts: int, is_last: bool) -> None:
    """Raise what another attempt would only repeat; otherwise say that one follows."""
    wrong = [failure for failure in failures if failure.kind == "ValueError"]
    if wrong:
        raise ValueError(wrong[0].reason)
    shard, kind, reason = failures[0]
    what = f"{len(failures)} shards failed, among them {shard} by {kind}: {reason}"
    if is_last:
        raise RuntimeError(f"{what} (after {attempts} attempts)")
    logger.warning("%s; they are tried again", what)
