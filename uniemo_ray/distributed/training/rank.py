"""One rank of a training stage, inside a Ray Train worker."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
import torch

from uniemo_ray.distributed.logs import show_rank
from uniemo_ray.distributed.training.rank_data import Place, RankData
from uniemo_ray.distributed.training.record_folder import BestWeights, RecordFolder, export
from uniemo_ray.distributed.training.work import Work
from uniemo_ray.seeds import hash_seed
from uniemo_ray.training.batches import Batch
from uniemo_ray.training.engine import Engine
from uniemo_ray.training.loop import Schedule, train
from uniemo_ray.training.parts import StageParts
from uniemo_ray.training.records import MetricLog, TrainingProgress
from uniemo_ray.training.stage import build_stage
from uniemo_ray.training.state import TrainState, load_history, load_state, save_state


@dataclass(frozen=True)
class _Start:
    state: TrainState
    history: list[dict[str, Any]]


def train_rank(work: Work) -> None:
    """Train this rank's share of a stage."""
    show_rank(ray.train.get_context().get_world_rank())
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
        is_best_kept = work.settings.train.keep_epoch == "best" and work.val is not None
        best = BestWeights(parts, engine, records) if is_best_kept else None
        context = ray.train.get_context()
        place = Place(
            engine.rank, engine.world_size, context.get_local_rank(), context.get_local_world_size()
        )
        data = RankData(work, parts.collate, place)
        train(
            engine,
            batches=partial(_epoch_batches, data, start.state),
            validation=data.validation if work.val is not None else None,
            schedule=Schedule(work.settings.train.epochs, work.settings.train.checkpoint_every_s),
            state=start.state,
            save=partial(_save, work, parts, engine, log, records, best),
            keep_best=best.keep if best else None,
            log=log,
            progress=progress,
        )


def _restore(engine: Engine, work: Work) -> _Start:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return _Start(TrainState(world_size=engine.world_size), [])
    with checkpoint.as_directory() as path:
        folder = Path(path)
        state = load_state(folder, epochs=work.settings.train.epochs)
        engine.load(folder)
        return _Start(state, load_history(folder) if engine.rank == 0 else [])


def _epoch_batches(data: RankData, start: TrainState, epoch: int) -> Iterator[Batch]:
    """An epoch's batches; of the one that was stopped, what it has left."""
    return data.training(epoch, first=start.step_in_epoch if epoch == start.epoch else 0)


def _save(
    work: Work,
    parts: StageParts,
    engine: Engine,
    log: MetricLog | None,
    records: RecordFolder | None,
    best: BestWeights | None,
    state: TrainState,
    metrics: dict[str, float],
) -> None:
    """Report a checkpoint: every rank its shard, rank 0 the position; the last has weights instead."""
    is_complete = state.epoch == work.settings.train.epochs
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        if is_complete and best is not None and state.best_epoch is not None:
            best.export(folder, state.best_epoch)
        elif is_complete:
            export(parts, engine, folder)
        else:
            engine.save(folder)
        if log is not None and records is not None:
            save_state(folder, state, log.history)
            log.flush()
            records.sync()
        ray.train.report(
            {"step": state.step, "epoch": state.epoch, **metrics},
            checkpoint=ray.train.Checkpoint.from_directory(folder),
        )
    if best is not None:
        best.clean(keep=None if is_complete else state.best_epoch)
