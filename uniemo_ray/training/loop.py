"""The training loop: epochs of steps, metrics, evaluation and checkpoints. It knows no Ray."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple, Protocol

from uniemo_ray.training.batches import Batch
from uniemo_ray.training.cadence import Cadence
from uniemo_ray.training.engine import Engine
from uniemo_ray.training.records import MetricLog, TrainingProgress
from uniemo_ray.training.state import TrainState


class Save(Protocol):
    """Writes a checkpoint; called by every rank at the same steps."""

    def __call__(self, state: TrainState, metrics: dict[str, float]) -> None:
        """Write `state`; `metrics` are those of the step or epoch."""


class Order(NamedTuple):
    """What all ranks do after a step.

    Attributes:
        is_saved: Write a checkpoint.
        is_left: End this attempt then: a machine is about to be taken away.
    """

    is_saved: bool
    is_left: bool


class Ask(Protocol):
    """Agrees on an order; called by every rank at the same steps."""

    def __call__(self, *, is_due: bool) -> Order:
        """What to do, given whether rank 0 finds that a checkpoint is due."""


LOOK_EVERY_S = 2.0
"""Time between two questions whether a machine is about to be taken away, in seconds."""


class Schedule(NamedTuple):
    """When a stage ends and when it is saved.

    Attributes:
        epochs: Passes over the data.
        checkpoint_every_s: Shortest time between checkpoints inside an epoch, in seconds by the clock of
            rank 0.
        checkpoint_share: Largest share of the time that saving may take.
        stop_after: Epochs in a row without a higher `val_accuracy` that end the stage; None for no end.
    """

    epochs: int
    checkpoint_every_s: float
    checkpoint_share: float = 1.0
    stop_after: int | None = None


def train(
    engine: Engine,
    *,
    batches: Callable[[int], Iterable[Batch]],
    validation: Callable[[], Iterable[Batch]] | None,
    schedule: Schedule,
    state: TrainState,
    save: Save,
    ask: Ask | None = None,
    keep_best: Callable[[int], None] | None = None,
    log: MetricLog | None = None,
    progress: TrainingProgress | None = None,
) -> TrainState:
    """Train from `state` to the end of the last epoch, which is always saved, or to a notice.

    Args:
        engine: Collective; already loaded with the weights of `state`.
        batches: Epoch to this rank's share of each batch: equally many on all ranks. For the epoch of
            `state` it yields what that epoch has left.
        validation: This rank's batches of the validation set, or None to skip validation.
        schedule: Length and checkpoint times.
        state: Where to go on.
        save: Writes a checkpoint.
        ask: Collective; decides about checkpoints and notices. None saves whenever rank 0 finds it due, and
            after every epoch.
        keep_best: Collective; keeps the weights of the epoch (0-based) with the highest `val_accuracy` so
            far, before its checkpoint. None where the last epoch counts.
        log: Metrics of rank 0; None on other ranks.
        progress: TrainingProgress lines of rank 0; None on other ranks.

    Returns:
        The last state, which has been saved; it is complete unless there was a notice.
    """
    turns = _Turns(schedule, save, ask, is_first=engine.rank == 0)
    while not state.is_complete(schedule.epochs):
        totals = _Mean()
        for batch in batches(state.epoch):
            state, metrics, is_flagged = _step(engine, batch, state, is_due=turns.is_flagged())
            totals.add(metrics, weight=batch.images)
            _record(metrics, state, batch, log=log, progress=progress)
            if is_flagged and turns.take(state, metrics):
                return state
        metrics = totals.values()
        if validation is not None:
            metrics |= {f"val_{name}": value for name, value in evaluate(engine, validation()).items()}
        if keep_best is not None or schedule.stop_after is not None:
            state = state.judged(metrics["val_accuracy"], stop_after=schedule.stop_after)
            if keep_best is not None and state.best_epoch == state.epoch:
                keep_best(state.epoch)
        if log is not None:
            log.write({"kind": "epoch", "step": state.step, "epoch": state.epoch, **metrics}, section="epoch")
        state = state.next_epoch()
        if turns.end_epoch(state, metrics):
            return state
    return state


def evaluate(engine: Engine, batches: Iterable[Batch]) -> dict[str, float]:
    """Means over all images of all ranks, by the averaged weights if there are any; equally many batches."""
    totals = _Mean()
    with engine.averaged_weights():
        for batch in batches:
            totals.add(engine.evaluate(batch.tensors, images=batch.images), weight=batch.images)
    return totals.values()


def _step(
    engine: Engine, batch: Batch, state: TrainState, *, is_due: bool
) -> tuple[TrainState, dict[str, float], bool]:
    started = time.monotonic()
    result = engine.step(batch.tensors, images=batch.images, is_due=is_due)
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


class _Turns:
    """When ranks stop to save or to look for a notice. Rank 0 raises a flag, and all act on it together."""

    def __init__(self, schedule: Schedule, save: Save, ask: Ask | None, *, is_first: bool) -> None:
        self._epochs, self._save, self._ask, self._is_first = schedule.epochs, save, ask, is_first
        self._cadence = Cadence(shortest_s=schedule.checkpoint_every_s, share=schedule.checkpoint_share)
        self._looked_at = time.monotonic()

    def is_flagged(self) -> bool:
        """Whether this rank wants all to stop after the step that begins."""
        is_look = self._ask is not None and time.monotonic() - self._looked_at >= LOOK_EVERY_S
        return self._is_first and (is_look or self._cadence.is_due())

    def take(self, state: TrainState, metrics: dict[str, float]) -> bool:
        """What follows a step with a flag; whether to leave."""
        return self._act(state, metrics, is_due=self._cadence.is_due())

    def end_epoch(self, state: TrainState, metrics: dict[str, float]) -> bool:
        """What follows an epoch; whether to leave. The last epoch is always saved."""
        is_complete = state.is_complete(self._epochs)
        return self._act(state, metrics, is_due=is_complete or self._cadence.is_due(is_epoch_end=True))

    def _act(self, state: TrainState, metrics: dict[str, float], *, is_due: bool) -> bool:
        order = self._ask(is_due=is_due) if self._ask else Order(is_saved=True, is_left=False)
        self._looked_at = time.monotonic()
        if order.is_saved:
            self._save(state, metrics)
            self._cadence.saved(held_s=time.monotonic() - self._looked_at)
        return order.is_left


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
