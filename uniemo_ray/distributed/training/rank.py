"""One rank of a training stage, inside a Ray Train worker."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
import torch

from uniemo_ray.distributed.logs import show_rank
from uniemo_ray.distributed.training.checkpoints import Checkpoints, clear_scratch
from uniemo_ray.distributed.training.machines import note_machine
from uniemo_ray.distributed.training.record_folder import BestWeights, RecordFolder
from uniemo_ray.distributed.training.work import Work
from uniemo_ray.seeds import hash_seed
from uniemo_ray.training.batches import Batch, Raw
from uniemo_ray.training.engine import Engine
from uniemo_ray.training.loop import Schedule, train
from uniemo_ray.training.parts import StageParts
from uniemo_ray.training.prefetch import prefetch
from uniemo_ray.training.records import MetricLog, TrainingProgress
from uniemo_ray.training.stage import build_stage
from uniemo_ray.training.state import (
    Seen,
    TrainState,
    load_history,
    load_seen,
    load_state,
)

SHUFFLE_ROWS = 1024


@dataclass(frozen=True)
class _Start:
    state: TrainState
    seen: Seen
    history: list[dict[str, Any]]


def train_rank(work: Work) -> None:
    """Train this rank's share of a stage."""
    show_rank(ray.train.get_context().get_world_rank())
    note_machine(work)
    clear_scratch(work)
    torch.set_num_threads(work.threads)
    # Frozen fresh weights are in no checkpoint: they must come out the same after a resume.
    torch.manual_seed(hash_seed(work.seed, "build"))
    parts = (work.build or build_stage)(work.settings)
    engine = Engine(
        parts.objective, parts.groups, train=work.settings.train, total_steps=work.total_steps, seed=work.seed
    )
    start = _restore(engine, work)
    with ExitStack() as stack:
        log = progress = records = None
        if engine.rank == 0:
            records = RecordFolder(work, stack)
            stack.callback(records.sync)
            log = stack.enter_context(MetricLog(records.local, start.history, step=start.state.step))
            progress = TrainingProgress(
                work.name,
                total_steps=work.total_steps,
                epochs=work.settings.train.epochs,
                step=start.state.step,
            )
        is_best_kept = work.settings.train.keep_epoch == "best" and "val" in work.shards
        best = BestWeights(parts, engine, records) if is_best_kept else None
        checkpoints = Checkpoints(work, parts, engine, log, records, best)
        train(
            engine,
            batches=partial(_epoch_batches, work, parts, engine.rank, start.state),
            validation=partial(_validation_batches, work, parts) if "val" in work.shards else None,
            schedule=_schedule(work),
            state=start.state,
            seen=start.seen,
            save=checkpoints.save,
            ask=checkpoints.ask,
            keep_best=best.keep if best else None,
            log=log,
            progress=progress,
        )


def _schedule(work: Work) -> Schedule:
    train = work.settings.train
    return Schedule(train.epochs, train.checkpoint_every_s, train.checkpoint_share)


def _restore(engine: Engine, work: Work) -> _Start:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return _Start(TrainState(world_size=engine.world_size), Seen(), [])
    with checkpoint.as_directory() as path:
        folder = Path(path)
        state = load_state(folder)
        if state.step != work.resume_step:
            raise RuntimeError(
                f"resumed at step {state.step}, but the data is prepared for {work.resume_step}"
            )
        engine.load(folder)
        # Rank 0 carries what all ranks saw before the stop.
        parts = [load_seen(folder)] if engine.rank == 0 and state.step_in_epoch else []
        return _Start(state, Seen(parts), load_history(folder) if engine.rank == 0 else [])


def _epoch_batches(
    work: Work, parts: StageParts, rank: int, start: TrainState, epoch: int
) -> Iterator[Batch]:
    is_rest = epoch == start.epoch and start.step_in_epoch > 0
    if is_rest and "rest" not in work.shards:
        return iter(())
    rows = ray.train.get_dataset_shard("rest" if is_rest else "train").iter_batches(
        batch_size=_batch_size(work),
        batch_format="numpy",
        local_shuffle_buffer_size=SHUFFLE_ROWS,
        local_shuffle_seed=hash_seed(work.seed, "shuffle", epoch, rank) % 2**31,
    )
    return _prepared(work, rows, partial(parts.collate, epoch=epoch, is_training=True))


def _batch_size(work: Work) -> int:
    """Images of a step on each rank."""
    world_size: int = ray.train.get_context().get_world_size()
    return work.settings.train.batch_size // world_size


def _validation_batches(work: Work, parts: StageParts) -> Iterator[Batch]:
    rows = ray.train.get_dataset_shard("val").iter_batches(
        batch_size=_batch_size(work),
        batch_format="numpy",
    )
    return _prepared(work, rows, partial(parts.collate, epoch=0, is_training=False))


def _prepared(work: Work, rows: Iterable[Raw], collate: Callable[[Raw], Batch]) -> Iterator[Batch]:
    """Batches, made ahead where that is free: on a single CPU a second thread costs a step 7 %."""
    is_free = work.threads > 1 or torch.cuda.is_available()
    return prefetch(rows, collate) if is_free else map(collate, rows)
