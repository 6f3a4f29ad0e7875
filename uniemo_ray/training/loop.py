"""The training loop: epochs of steps, metrics, evaluation and checkpoints. It knows no Ray."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple, Protocol

from uniemo_ray.training.batches import Batch
from uniemo_ray.training.engine import Engine
from uniemo_ray.training.records import MetricLog, TrainingProgress
from uniemo_ray.training.state import TrainState


class Save(Protocol):
    """Writes a checkpoint; called by every rank at the same steps."""

    def __call__(self, state: TrainState, metrics: dict[str, float]) -> None:
        """Write `state`; `metrics` are those of the step or epoch."""


class Schedule(NamedTuple):
    """When a stage ends and when it is saved.

    Attributes:
        epochs: Passes over the data.
        checkpoint_every_s: Seconds between checkpoints inside an epoch, by the clock of rank 0.
    """

    epochs: int
    checkpoint_every_s: float


def train(
    engine: Engine,
    *,
    batches: Callable[[int], Iterable[Batch]],
    validation: Callable[[], Iterable[Batch]] | None,
    schedule: Schedule,
    state: TrainState,
    save: Save,
    keep_best: Callable[[int], None] | None = None,
    log: MetricLog | None = None,
    progress: TrainingProgress | None = None,
) -> TrainState:
    """Train from `state` to the end of the last epoch, with a checkpoint at the end of every epoch.

    Args:
        engine: Collective; already loaded with the weights of `state`.
        batches: Epoch to this rank's share of each batch: equally many on all ranks. For the epoch of
            `state` it yields what that epoch has left.
        validation: This rank's batches of the validation set, or None to skip validation.
        schedule: Length and checkpoint times.
        state: Where to go on.
        save: Writes a checkpoint.
        keep_best: Collective; keeps the weights of the epoch (0-based) with the highest `val_accuracy` so
            far, before its checkpoint. None where the last epoch counts.
        log: Metrics of rank 0; None on other ranks.
        progress: TrainingProgress lines of rank 0; None on other ranks.

    Returns:
        The final state, `epoch` equal to `schedule.epochs`.
    """
    saved_at = time.monotonic()
    while state.epoch < schedule.epochs:
        totals = _Mean()
        for batch in batches(state.epoch):
            state, metrics, is_due = _step(
                engine, batch, state, due_at=saved_at + schedule.checkpoint_every_s
            )
            totals.add(metrics, weight=batch.images)
            _record(metrics, state, batch, log=log, progress=progress)
            if is_due:
                save(state, metrics)
                saved_at = time.monotonic()
        metrics = totals.values()
        if validation is not None:
            metrics |= {f"val_{name}": value for name, value in evaluate(engine, validation()).items()}
        if keep_best is not None and metrics["val_accuracy"] > state.best_accuracy:
            state = replace(state, best_epoch=state.epoch, best_accuracy=metrics["val_accuracy"])
            keep_best(state.epoch)
        if log is not None:
            log.write({"kind": "epoch", "step": state.step, "epoch": state.epoch, **metrics}, section="epoch")
        state = state.next_epoch()
        save(state, metrics)
        saved_at = time.monotonic()
    return state


def evaluate(engine: Engine, batches: Iterable[Batch]) -> dict[str, float]:
    """Means over all images of all ranks; the same number of batches on each."""
    totals = _Mean()
    for batch in batches:
        share = len(batch.image_ids) * engine.world_size / batch.images
        totals.add(engine.evaluate(batch.tensors, share=share), weight=batch.images)
    return totals.values()


def _step(
    engine: Engine, batch: Batch, state: TrainState, *, due_at: float
) -> tuple[TrainState, dict[str, float], bool]:
    started = time.monotonic()
    result = engine.step(batch.tensors, is_due=engine.rank == 0 and started >= due_at)
    state = replace(state, world_size=engine.world_size)
    state = state.after_step(images=batch.images, seconds=time.monotonic() - started)
    return state, result.metrics, result.is_due


def _record(
    metrics: dict[str, float],
    state: TrainState,
    batch: Batch,
    *,
    log: MetricLog | None,
    progress: TrainingProgress | None,
) -> None:
    if log is not None:
        log.write({"kind": "step", "step": state.step, "epoch": state.epoch, **metrics}, section="step")
    if progress is not None:
        progress.update(step=state.step, epoch=state.epoch, images=batch.images, metrics=metrics)


class _Mean:
    """Weighted means of named values."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._weight = 0

    def add(self, values: dict[str, float], *, weight: int) -> None:
        self._weight += weight
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + weight * value

    def values(self) -> dict[str, float]:
        return {name: total / max(1, self._weight) for name, total in self._sums.items()}
