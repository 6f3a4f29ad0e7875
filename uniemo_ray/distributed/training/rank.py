"""One rank of a training stage, inside a Ray Train worker."""

import hashlib
from collections.abc import Iterator
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
from uniemo_ray.distributed.training.metrics import StageGauges
from uniemo_ray.distributed.training.rank_data import Place, RankData
from uniemo_ray.distributed.training.record_folder import BestWeights, RecordFolder
from uniemo_ray.distributed.training.work import Work
from uniemo_ray.seeds import hash_seed
from uniemo_ray.training.batches import Batch
from uniemo_ray.training.engine import Engine
from uniemo_ray.training.loop import Schedule, train
from uniemo_ray.training.records import MetricLog, TrainingProgress
from uniemo_ray.training.stage import build_stage
from uniemo_ray.training.state import TrainState, load_history, load_state
from uniemo_ray.training.trackers import Tracked, Tracker, make_trackers


@dataclass(frozen=True)
class _Start:
    state: TrainState
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
        parts.objective,
        parts.groups,
        train=work.settings.train,
        total_steps=work.total_steps,
        seed=work.seed,
        make_optimizer=parts.make_optimizer,
    )
    start = _restore(engine, work)
    with ExitStack() as stack:
        log = progress = records = gauges = None
        if engine.rank == 0:
            records = RecordFolder(work, stack)
            stack.callback(records.sync)
            gauges = _gauges(work)
            trackers = [*_trackers(work, records.local, start.state.step), gauges]
            log = stack.enter_context(MetricLog(records.local, start.history, trackers))
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
        checkpoints = Checkpoints(work, parts, engine, log, records, best, gauges)
        train(
            engine,
            batches=partial(_epoch_batches, data, start.state),
            validation=data.validation if work.val is not None else None,
            schedule=_schedule(work),
            state=start.state,
            save=checkpoints.save,
            ask=checkpoints.ask,
            keep_best=best.keep if best else None,
            log=log,
            progress=progress,
        )


def _gauges(work: Work) -> StageGauges:
    batch_size = work.settings.train.batch_size
    return StageGauges(work.name, total_steps=work.total_steps, batch_size=batch_size)


def _trackers(work: Work, folder: Path, step: int) -> list[Tracker]:
    name = hashlib.sha256(work.records.encode()).hexdigest()[:16]
    return make_trackers(work.settings.config.tracking, Tracked(work.name, name, folder, step))


def _schedule(work: Work) -> Schedule:
    train = work.settings.train
    stop_after = train.stop_after_epochs_without_gain if work.val is not None else None
    return Schedule(train.epochs, train.checkpoint_every_s, train.checkpoint_share, stop_after)


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
