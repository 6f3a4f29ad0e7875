"""Shard in, shard out: run an actor over Parquet shards and commit each result under the same name.

What is committed is skipped, so submitting a run again resumes it, and an actor
that dies costs at most the shard it was working on. A shard that fails is tried again after all others:
an exception never ends the pool, it comes back as a row.
"""

import logging
import re
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import ray.data
import ray.exceptions
from ray.data import ExecutionResources

from uniemo_ray.distributed.shards.health import Health, NoActorError, wait_for_end
from uniemo_ray.distributed.shards.lanes import AT_ONCE
from uniemo_ray.distributed.shards.mapper import MapWork, ShardMapper, map_in_task
from uniemo_ray.distributed.shards.placement import Placement
from uniemo_ray.distributed.shards.progress import Progress, shown
from uniemo_ray.distributed.shards.report import ShardReport, ShardTask
from uniemo_ray.distributed.shards.table_actor import ActorFactory
from uniemo_ray.pools import Pool
from uniemo_ray.store import faults
from uniemo_ray.store.base import Store
from uniemo_ray.store.errors import SupersededError
from uniemo_ray.store.shards import ShardEntry, entries_of, seal_manifest
from uniemo_ray.store.steps import current_step

logger = logging.getLogger(__name__)
RETRIES = 2
"""How often failed shards are tried again."""
FRUITLESS_PASSES = 3
"""How many passes in a row may make nothing before the step fails."""
_TWO_AT_ONCE: dict[str, Any] = {
    "max_concurrent_calls_per_actor": AT_ONCE,
    "max_tasks_in_flight_per_actor": AT_ONCE,
    "enable_true_multi_threading": True,
}


class _Wanted(NamedTuple):
    """A shard that there has to be in the end."""

    key: str
    """Key of the input file."""
    bytes: int
    """Size of the input file."""
    sha256: str
    """Digest of the input file."""
    name: str
    """Name of the resulting shard."""
    plan: str
    """Plan hash of the resulting shard."""
    rows: int
    """Rows of the input file."""


def map_shards(
    source: Store,
    folders: Mapping[str, str],
    *,
    target: Store,
    actor: ActorFactory,
    plan_hash: str | None,
    pool: Pool,
    retries: int = RETRIES,
    as_tasks: bool = False,
    overlaps: bool = False,
    only: Collection[str] | None = None,
) -> dict[str, int]:
    """Map all Parquet shards of some folders into folders of `target`; returns the rows of each.

    Args:
        source: store of the input shards.
        folders: folder of the results to folder of the input shards; shards keep their names.
        target: store of the results.
        actor: makes a `TableActor` on a device: a class, or a `partial` of one; importable on the workers.
        plan_hash: what the results are made for; None: each for what its input was made for.
        pool: number of actors, what each reserves, and its machines.
        retries: how often failed shards are tried again. After that a `RejectingActor` gets the rows one by
            one, and those at fault become rows with a reason.
        as_tasks: whether each shard is a task that makes an actor object of its own, for a class that loads
            nothing. That saves the start of processes; tasks take every CPU of the cluster.
        overlaps: whether an actor encodes and commits a shard while it works on the next one, which takes
            the memory of two shards. A process that is lost then loses both.
        only: names of the input shards that are wanted; None: all.

    Raises:
        FileNotFoundError: a folder without committed input shards.
        ValueError: results of another plan are there; or raised by the actor: a wrong plan or model stays
            wrong, so it is not tried again.
        SupersededError: this driver is superseded.
        RuntimeError: a shard fails after all retries, passes make nothing, or no actor starts (NoActorError).
    """
    wanted = [
        shard
        for folder, prefix in folders.items()
        for shard in _wanted(source, prefix, folder, plan_hash, only=only)
    ]
    device = "cuda" if pool.gpus else "cpu"
    label = current_step() or ", ".join(map(_last_part, folders))
    work = MapWork(actor, device, source, target, retries, label=label, tf32=pool.tf32)
    done = _done(wanted, target)
    if done:
        logger.info("%s: %d of %d shards are finished already", work.label, len(done), len(wanted))
    attempt, fruitless = 1, 0
    while todo := [shard for shard in wanted if shard.name not in done]:
        tasks = [ShardTask(*shard[:-1], attempt=attempt, is_last=attempt > retries) for shard in todo]
        progress = _progress(wanted, done, work=work, pool=pool)
        failures = _map(tasks, work, progress, pool=pool, as_tasks=as_tasks, overlaps=overlaps)
        before, done = len(done), _done(wanted, target)
        if failures:
            _raise_if_final(failures, attempts=attempt, is_last=attempt > retries)
            attempt += 1
        elif lost := [shard.name for shard in wanted if shard.name not in done]:
            # Lost with their processes: no fault of theirs, and so none of their attempts.
            fruitless = 0 if len(done) > before else fruitless + 1
            _raise_if_fruitless(lost, passes=fruitless)
    faults.reach("mapped")
    return {
        folder: sum(entry.rows for name, entry in done.items() if name.startswith(f"{folder}/"))
        for folder in folders
    }


def _wanted(
    source: Store, prefix: str, folder: str, plan_hash: str | None, *, only: Collection[str] | None
) -> list[_Wanted]:
    """What becomes of a folder's shards."""
    return [
        _Wanted(
            entry.key,
            entry.bytes,
            entry.sha256,
            name=f"{folder}/{entry.name.rpartition('/')[2]}",
            plan=entry.plan_hash if plan_hash is None else plan_hash,
            rows=entry.rows,
        )
        for entry in entries_of(source, prefix)
        if only is None or entry.name in only
    ]


def _done(wanted: Sequence[_Wanted], target: Store) -> dict[str, ShardEntry]:
    """What is committed. From now on, superseded drivers can add nothing to it."""
    listed = seal_manifest(target)
    done = {shard.name: listed[shard.name] for shard in wanted if shard.name in listed}
    for shard in wanted:
        if shard.name in done and done[shard.name].plan_hash != shard.plan:
            other = done[shard.name].plan_hash
            raise ValueError(
                f"{target.uri}/{shard.name} was made for another plan ({other[:12]}): choose an empty folder"
            )
    return done


def _slug(label: str) -> str:
    """A label as a part of actors' names, so that Ray's dashboard shows whose they are."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")


def _last_part(folder: str) -> str:
    return folder.rpartition("/")[2]


def _progress(
    wanted: Sequence[_Wanted],
    done: Mapping[str, ShardEntry],
    *,
    work: MapWork,
    pool: Pool,
) -> Progress:
    return Progress(
        label=work.label,
        rows=sum(shard.rows for shard in wanted),
        shards=len(wanted),
        prices=pool.prices,
        rows_before=sum(entry.rows for entry in done.values()),
        failed_before=sum(sum(entry.failed.values()) for entry in done.values()),
        shards_before=len(done),
    )


def _map(
    tasks: Sequence[ShardTask],
    work: MapWork,
    progress: Progress,
    *,
    pool: Pool,
    as_tasks: bool,
    overlaps: bool,
) -> list[ShardReport]:
    """Run the pool over the tasks; returns what failed."""
    # One block per shard: otherwise Ray packs the small spec rows into one block, and one actor works.
    plan = ray.data.from_items([task._asdict() for task in tasks], override_num_blocks=len(tasks))
    # Actors that cannot start, or end, do not end the pass: `map_shards` sees what is lost with them.
    plan.context.max_errored_blocks = plan.context.max_consecutive_actor_init_deaths = -1
    # What Ray Data asks the autoscaler for while its machines are busy carries these labels as well. A pool
    # of actors asks for all of them at the start, and for no further machine.
    options = plan.context.execution_options
    options.label_selector = dict(pool.labels or {}) or None
    reserved: dict[str, Any] = {
        "batch_size": 1,
        "num_cpus": pool.cpus,
        "num_gpus": pool.gpus,
        "memory": pool.memory_bytes,
        **pool.selectors(),
    }
    work = replace(work, pool=f"{_slug(work.label)}-{uuid.uuid4().hex[:12]}")
    health = Health(work.target, work.pool)
    if as_tasks:
        # Ray declares no further arguments
        results = plan.map_batches(map_in_task, fn_kwargs={"work": work}, **reserved)  # type: ignore[arg-type]
    else:
        most = min(pool.actors, len(tasks))
        options.resource_limits = _limits(pool, most)
        # Starts at full size; actors that have nothing to do, or no machine, are let go down to the smallest.
        actors = ray.data.ActorPoolStrategy(
            min_size=min(pool.min_actors, most),
            max_size=most,
            initial_size=most,
            **(_TWO_AT_ONCE if overlaps else {}),
        )
        results = plan.map_batches(
            ShardMapper,
            fn_constructor_args=(work,),
            compute=actors,
            ray_remote_args_fn=Placement(health, pool),
            **reserved,
        )
    with shown(progress, pool):
        try:
            return _follow(results.iter_rows(), progress)
        except ray.exceptions.RayError as error:
            return [ShardReport.of_error(error, "the actor pool")]
        finally:
            if any(note.is_failure for note in health.notes()):
                wait_for_end(health.pool)  # a process that starts again would leave a note behind
            health.clear()


def _limits(pool: Pool, processes: int) -> ExecutionResources:
    return ExecutionResources.for_limits(
        cpu=processes * pool.cpus, gpu=processes * pool.gpus if pool.gpus else None
    )


def _follow(rows: Iterable[Mapping[str, Any]], progress: Progress) -> list[ShardReport]:
    failures = []
    for row in rows:
        report = ShardReport(**row)
        if report.kind:
            failures.append(report)
        else:
            progress.add(report)
    return failures


def _raise_if_fruitless(lost: Sequence[str], *, passes: int) -> None:
    """Raise when passes in a row have made nothing; otherwise say that another one follows."""
    what = f"{len(lost)} shards were lost with the processes that made them, among them {lost[0]}"
    if passes >= FRUITLESS_PASSES:
        raise RuntimeError(f"{what}, and {passes} passes in a row have made none")
    logger.warning("%s; they are made again", what)


def _raise_if_final(failures: list[ShardReport], *, attempts: int, is_last: bool) -> None:
    """Raise what another attempt would only repeat; otherwise say that one follows."""
    for error in (SupersededError, ValueError, NoActorError):
        if wrong := [failure for failure in failures if failure.kind == error.__name__]:
            raise error(wrong[0].reason)
    first = failures[0]
    what = f"{len(failures)} shards failed, among them {first.shard} by {first.kind}: {first.reason}"
    if is_last:
        raise RuntimeError(f"{what} (after {attempts} attempts)")
    logger.warning("%s; they are tried again", what)
