"""What an actor of a pool runs: read a shard, transform it, commit it, report a small row."""

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uniemo_ray.accelerator import is_lost, is_out_of_memory
from uniemo_ray.distributed.shards.health import Health, NoActorError
from uniemo_ray.distributed.shards.lanes import Lanes
from uniemo_ray.distributed.shards.loading import Loading
from uniemo_ray.distributed.shards.progress import WorkerMetrics
from uniemo_ray.distributed.shards.report import ShardReport, ShardTask
from uniemo_ray.distributed.shards.table_actor import (
    ActorFactory,
    AdvisingActor,
    FormattedActor,
    Made,
    RejectingActor,
    StagedActor,
    TableActor,
    plan_beside,
)
from uniemo_ray.store.attempts import begin, count_attempts, end
from uniemo_ray.store.base import Store
from uniemo_ray.store.errors import StoreError
from uniemo_ray.store.shard_format import RESULTS, ShardFormat
from uniemo_ray.store.shards import check_bytes, commit_shard, find_shard
from uniemo_ray.text import one_line

logger = logging.getLogger(__name__)
DEATHS_OF_A_ROW = 2
"""How many processes a row may kill when it is tried alone: one may have been the machine's own end."""
_NO_ADVICE = "use accelerators with more memory"


@dataclass(frozen=True)
class MapWork:
    """What all shards of a call have in common."""

    make: ActorFactory
    device: str
    source: Store
    target: Store
    retries: int
    label: str
    """Name of the step in the metrics."""
    pool: str = ""
    """Name of the pool in the notes on its health."""
    tf32: bool = True
    """Whether GPUs may round the factors of fp32 products."""


class _RowsAtFaultError(Exception):
    """The actor raises at some row of a shard, and no attempt follows."""


class ShardMapper:
    """One actor process, or the body of one task. Two threads may call an actor, see `Lanes`."""

    def __init__(self, work: MapWork, *, is_task: bool = False) -> None:
        """Load the actor.

        Raises:
            Exception: what the last of several loads raised; Ray Data then puts another process in the place
                of this one. An error that concerns the whole pool, and any error of a task, is reported with
                every shard instead.
        """
        self.work, self.made = work, 0
        self.metrics = WorkerMetrics(work.label, device=work.device)
        self.loading = None if is_task else Loading(Health(work.target, work.pool))
        self.lanes, self._in_hand = Lanes(), set[str]()
        if work.device == "cuda":
            from uniemo_ray.devices import set_tf32  # imports torch: reading a data set does without

            set_tf32(work.tf32)
        self.actor: TableActor | Exception
        try:
            self.actor = self.loading.load(self._load) if self.loading else self._load()
        except Exception as error:
            if not (is_task or type(error) in (ValueError, NoActorError)):
                raise
            logger.exception("%s cannot start", work.make)
            self.actor = error

    def _load(self) -> TableActor:
        return self.work.make(device=self.work.device)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Ray Data's form: columns of `ShardTask` in, columns of `ShardReport` out."""
        columns = [batch[name].tolist() for name in ShardTask._fields]
        reports = [self.map(ShardTask(*values)) for values in zip(*columns, strict=True)]
        return {name: np.array([getattr(report, name) for report in reports]) for name in ShardReport._fields}

    def map(self, task: ShardTask) -> ShardReport:
        """Make one shard, or say why there is none."""
        self._in_hand.add(task.name)
        started = time.monotonic()
        try:
            report = self._make(task)
        except Exception as error:
            logger.exception("%s failed", task.name)
            if self.loading and is_lost(error):
                for name in list(self._in_hand):
                    end(self.work.target, name)  # none of them is at fault
                self.loading.end_process(error, made=self.made)
            if is_out_of_memory(error):
                error = ValueError(self._memory_advice(error))
            report = ShardReport.of_error(error, task.name)
        else:
            self.made += 1
        finally:
            self._in_hand.discard(task.name)
        self.metrics.count(report, seconds=time.monotonic() - started)
        return report

    def _make(self, task: ShardTask) -> ShardReport:
        if isinstance(self.actor, Exception):
            raise self.actor
        target = self.work.target
        if listed := find_shard(target, task.name):
            end(target, task.name)
            return ShardReport.of_entry(listed, {})  # by an attempt whose process died before it could tell
        deaths = count_attempts(target, task.name)
        if deaths > self.work.retries and isinstance(self.actor, RejectingActor):
            logger.warning("%s has killed %d processes: its rows are tried one by one", task.name, deaths)
        else:
            try:
                with self.lanes.inside(alone=deaths > 0):
                    return self._commit(task, self._transform)
            except _RowsAtFaultError as error:
                kind = type(error.__cause__).__name__
                logger.warning("%s raises %s: its rows are tried one by one", task.name, kind)
        with self.lanes.inside(alone=True):
            return self._commit(task, self._one_by_one)

    def _commit(
        self, task: ShardTask, transform: Callable[[TableActor, pa.Table, ShardTask], pa.Table | Made]
    ) -> ShardReport:
        assert not isinstance(self.actor, Exception)
        deaths = begin(self.work.target, task.name)
        started, form = time.monotonic(), self._form()
        try:
            made = transform(self.actor, self._read(task), task)
            result, beside = made if isinstance(made, Made) else Made(made)
            entry = commit_shard(
                self.work.target,
                task.name,
                form.finish(result, task.name),
                plan_hash=task.plan,
                seconds=self.lanes.lap(started),
                attempt=task.attempt + deaths,
                form=form,
            )
            # Last: without them the shard is whole, and who wants them makes them of it.
            for other in beside:
                name = f"{other.folder}/{task.name.rpartition('/')[2]}"
                plan_hash = plan_beside(task.plan, other.plan)
                commit_shard(self.work.target, name, other.table, plan_hash=plan_hash)
        finally:
            end(self.work.target, task.name)
        return ShardReport.of_entry(entry, _groups(result))

    def _memory_advice(self, error: Exception) -> str:
        advice = self.actor.memory_advice if isinstance(self.actor, AdvisingActor) else _NO_ADVICE
        return f"the accelerator ran out of memory ({one_line(error)}): {advice}"

    def _form(self) -> ShardFormat:
        return self.actor.form if isinstance(self.actor, FormattedActor) else RESULTS

    def _read(self, task: ShardTask) -> pa.Table:
        data = self.work.source.read_bytes(task.key)
        check_bytes(data, f"{self.work.source.uri}/{task.key}", length=task.bytes, sha256=task.sha256)
        return pq.read_table(pa.BufferReader(data))

    def _transform(self, actor: TableActor, table: pa.Table, task: ShardTask) -> pa.Table | Made:
        """The actor's result for the whole shard.

        Raises:
            _RowsAtFaultError: there is none, and no other attempt: the rows at fault are to be found.
        """
        try:
            return self._run(actor, table)
        except Exception as error:
            if (
                _is_run_level(error)
                or is_lost(error)
                or not (task.is_last and isinstance(actor, RejectingActor))
            ):
                raise
            raise _RowsAtFaultError from error

    def _run(self, actor: TableActor, table: pa.Table) -> pa.Table | Made:
        with self.lanes.device:
            if not isinstance(actor, StagedActor):
                return actor(table)
            finish = actor.begin(table)
        return finish()

    def _one_by_one(self, actor: Any, table: pa.Table, task: ShardTask) -> pa.Table:
        parts, errors = [], []
        for number in range(table.num_rows):
            row, attempts = table.slice(number, 1), f"{task.name}/row-{number:06d}"
            deaths = begin(self.work.target, attempts)
            if deaths >= DEATHS_OF_A_ROW:
                parts.append(actor.reject(row, f"killed {deaths} processes"))
                continue  # a row that kills has to be known as such when another one kills as well
            try:
                made = self._run(actor, row)
                parts.append(made.table if isinstance(made, Made) else made)
            except Exception as error:
                if _is_run_level(error) or is_lost(error):
                    end(self.work.target, attempts)  # it is not the row that is at fault
                    raise
                errors.append(error)
                parts.append(actor.reject(row, f"{type(error).__name__}: {error}".splitlines()[0]))
            end(self.work.target, attempts)
        if len(errors) == table.num_rows > 1:
            raise errors[0]  # a run-level error: no single row is at fault
        return pa.concat_tables(parts)


def map_in_task(batch: dict[str, np.ndarray], work: MapWork) -> dict[str, np.ndarray]:
    """Make shards as a task, which leaves nothing in its process."""
    return ShardMapper(work, is_task=True)(batch)


def _is_run_level(error: Exception) -> bool:
    """Whether an error concerns the whole run: a wrong model, storage or memory, and no single row.

    Subclasses of ValueError are what a decoder raises at a damaged row.
    """
    return type(error) is ValueError or isinstance(error, StoreError) or is_out_of_memory(error)


def _groups(table: pa.Table) -> dict[str, int]:
    """Rows with a result by emotion."""
    if "emotion" not in table.column_names:
        return {}
    emotions = table["emotion"].to_pylist()
    reasons = table["reason"].to_pylist() if "reason" in table.column_names else [None] * len(emotions)
    return dict(Counter(e for e, reason in zip(emotions, reasons, strict=True) if reason is None))
