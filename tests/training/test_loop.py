from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.tiny import TinyObjective, tiny_batch, tiny_config
from uniemo_ray.training.batches import Batch
from uniemo_ray.training.engine import Engine
from uniemo_ray.training.loop import Order, Schedule, evaluate, train
from uniemo_ray.training.records import MetricLog
from uniemo_ray.training.state import TrainState
from uniemo_ray.training.step_values import NonFiniteLossError

EPOCHS, STEPS = 2, 5
EVERY_STEP = 1e-9


def batches(epoch: int) -> list[Batch]:
    seeds = range(STEPS * epoch, STEPS * (epoch + 1))
    return [Batch(tiny_batch(seed), [f"{seed}-{i}" for i in range(8)]) for seed in seeds]


def make(stage: int = 1) -> tuple[Engine, TinyObjective]:
    objective = TinyObjective()
    train_config = tiny_config(zero_stage=stage)
    return Engine(objective, objective.groups(), train=train_config, total_steps=10, seed=1), objective


class Checkpoints:
    """Keeps every state, and stops the run after a given one."""

    def __init__(self, engine: Engine, folder: Path, *, stop_after: int | None = None) -> None:
        self.engine, self.folder, self.stop_after = engine, folder, stop_after
        self.states: list[TrainState] = []

    def __call__(self, state: TrainState, metrics: dict[str, float]) -> None:
        self.states.append(state)
        if state.step == self.stop_after:
            self.folder.mkdir(exist_ok=True)
            self.engine.save(self.folder)
            raise KeyboardInterrupt


def run(engine: Engine, save: Checkpoints, *, state: TrainState, every_s: float, **more) -> TrainState:
    skip = state.step_in_epoch
    return train(
        engine,
        batches=lambda epoch: batches(epoch)[skip if epoch == state.epoch else 0 :],
        validation=None,
        schedule=Schedule(EPOCHS, every_s),
        state=state,
        save=save,
        **more,
    )


@pytest.mark.parametrize("stop", [1, 3, 7])
def test_stopped_and_resumed_equals_a_straight_run(stop: int, tmp_path: Path) -> None:
    straight, objective = make()
    final = run(straight, Checkpoints(straight, tmp_path), state=TrainState(), every_s=1e9)
    stopped, _ = make()
    save = Checkpoints(stopped, tmp_path / "checkpoint", stop_after=stop)
    with pytest.raises(KeyboardInterrupt):
        run(stopped, save, state=TrainState(), every_s=EVERY_STEP)
    state = save.states[-1]
    resumed, other = make()
    resumed.load(save.folder)
    again = run(resumed, Checkpoints(resumed, tmp_path), state=state, every_s=1e9)
    assert (again.step, again.epoch, again.images) == (final.step, final.epoch, final.images) == (10, 2, 80)
    for name, value in straight.state_dict(objective.net).items():
        assert torch.equal(value, resumed.state_dict(other.net)[name])


def test_checkpoints_come_by_time_and_at_the_end_of_epochs(tmp_path: Path) -> None:
    engine, _ = make()
    rare = Checkpoints(engine, tmp_path)
    run(engine, rare, state=TrainState(), every_s=1e9)
    assert [(s.epoch, s.step_in_epoch, s.step) for s in rare.states] == [(1, 0, 5), (2, 0, 10)]
    engine, _ = make()
    often = Checkpoints(engine, tmp_path)
    run(engine, often, state=TrainState(), every_s=EVERY_STEP)
    assert [s.step for s in often.states] == [1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10, 10]


def test_records_hold_every_step_and_the_mean_of_each_epoch(tmp_path: Path) -> None:
    engine, _ = make()
    with MetricLog(tmp_path, []) as log:
        run(engine, Checkpoints(engine, tmp_path), state=TrainState(), every_s=1e9, log=log)
    steps = [r for r in log.history if r["kind"] == "step"]
    epochs = [r for r in log.history if r["kind"] == "epoch"]
    assert [r["step"] for r in steps] == list(range(1, 11))
    assert [r["step"] for r in epochs] == [5, 10]
    assert epochs[1]["loss"] == pytest.approx(np.mean([r["loss"] for r in steps[5:]]))
    assert epochs[1]["loss"] < epochs[0]["loss"]


def test_evaluation_weighs_batches_by_their_size() -> None:
    engine, objective = make()
    parts = [Batch(tiny_batch(1, size=6), ["x"] * 6), Batch(tiny_batch(2, size=2), ["y"] * 2)]
    objective.eval()
    both = {"x": torch.cat([part.tensors["x"] for part in parts])}
    expected = objective(both)["loss"].item()
    assert evaluate(engine, parts)["loss"] == pytest.approx(expected, rel=1e-5)
    assert evaluate(engine, []) == {}


def test_ranks_save_and_leave_on_a_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uniemo_ray.training.loop.LOOK_EVERY_S", 0.0)
    engine, _ = make()
    save, asked = Checkpoints(engine, tmp_path), []

    def ask(*, is_due: bool) -> Order:
        asked.append(is_due)
        return Order(is_saved=is_due or len(asked) == 8, is_left=len(asked) == 8)

    left = run(engine, save, state=TrainState(), every_s=1e9, ask=ask)
    assert asked == [False] * 5 + [True] + [False] * 2  # five steps, the end of an epoch, two steps
    assert [(s.epoch, s.step_in_epoch, s.step) for s in save.states] == [(1, 0, 5), (1, 2, 7)]
    assert left == save.states[-1]


def test_the_last_epoch_is_saved_whatever_saving_took(tmp_path: Path) -> None:
    engine, _ = make()
    save = Checkpoints(engine, tmp_path)
    train(
        engine,
        batches=batches,
        validation=None,
        schedule=Schedule(EPOCHS, 1e9, checkpoint_share=1e-12),
        state=TrainState(),
        save=save,
        ask=lambda *, is_due: Order(is_saved=is_due, is_left=False),
    )
    assert [state.epoch for state in save.states] == [1, 2]


def test_nobody_is_asked_without_need(tmp_path: Path) -> None:
    engine, _ = make()
    save, asked = Checkpoints(engine, tmp_path), []

    def ask(*, is_due: bool) -> Order:
        asked.append(is_due)
        return Order(is_saved=is_due, is_left=False)

    final = run(engine, save, state=TrainState(), every_s=1e9, ask=ask)
    assert asked == [True, True]  # the ends of both epochs
    assert final.epoch == EPOCHS


def test_steps_count_the_images_of_all_ranks() -> None:
    batch = Batch(tiny_batch(0, size=4), ["x"] * 4, total=12)
    assert (batch.images, Batch(tiny_batch(0, size=4), ["x"] * 4).images) == (12, 4)


@pytest.mark.parametrize("zero_stage", [0, 1, 3])
def test_a_loss_that_is_not_finite_is_in_no_checkpoint_and_in_no_log(zero_stage: int, tmp_path: Path) -> None:
    engine, _ = make(zero_stage)
    save = Checkpoints(engine, tmp_path)
    bad = Batch({"x": torch.full((8, 4), float("nan"))}, ["bad"] * 8)
    log = MetricLog(tmp_path, [])
    with pytest.raises(NonFiniteLossError, match="step 2"):
        train(
            engine,
            batches=lambda epoch: [*batches(epoch)[:2], bad, *batches(epoch)[2:]],
            validation=None,
            schedule=Schedule(EPOCHS, EVERY_STEP),
            state=TrainState(),
            save=save,
            log=log,
        )
    assert [state.step for state in save.states] == [1, 2]
    assert [record["step"] for record in log.history] == [1, 2]
    engine.save(tmp_path)
    resumed, objective = make(zero_stage)
    resumed.load(tmp_path)
    assert all(torch.isfinite(value).all() for value in resumed.state_dict(objective).values())


class Judged(TinyObjective):
    """Says an accuracy that rises, falls and rises a little, whatever it has learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = iter([0.5, 0.75, 0.25, 0.75])

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        accuracy = torch.tensor(0.0 if self.training else next(self.asked))
        return super().forward(batch) | {"accuracy": accuracy}


def test_the_epoch_with_the_highest_validation_accuracy_is_kept(tmp_path: Path) -> None:
    objective = Judged()
    engine = Engine(objective, objective.groups(), train=tiny_config(), total_steps=20, seed=1)
    kept: list[tuple[int, int]] = []
    save = Checkpoints(engine, tmp_path)
    final = train(
        engine,
        batches=lambda epoch: batches(0),
        validation=lambda: [Batch(tiny_batch(99), ["v"] * 8)],
        schedule=Schedule(4, 1e9),
        state=TrainState(),
        save=save,
        keep_best=lambda epoch: kept.append((epoch, engine.steps)),
    )
    assert kept == [(0, 5), (1, 10)]  # of two equal ones the earlier
    assert (final.best_epoch, final.best_accuracy) == (1, 0.75)
    assert [state.best_epoch for state in save.states] == [0, 1, 1, 1]


def test_a_stage_ends_when_accuracy_rises_no_more(tmp_path: Path) -> None:
    objective = Judged()
    engine = Engine(objective, objective.groups(), train=tiny_config(), total_steps=20, seed=1)
    save = Checkpoints(engine, tmp_path)
    final = train(
        engine,
        batches=lambda epoch: batches(0),
        validation=lambda: [Batch(tiny_batch(99), ["v"] * 8)],
        schedule=Schedule(4, 1e9, stop_after=1),
        state=TrainState(),
        save=save,
    )
    assert (final.is_stopped, final.epoch, engine.steps) == (True, 3, 15)
    assert save.states[-1] == final
    again = train(
        engine,
        batches=lambda epoch: batches(0),
        validation=None,
        schedule=Schedule(4, 1e9, stop_after=1),
        state=final,
        save=save,
    )
    assert again == final  # a stage that has ended stays ended


def test_validation_draws_the_same_noise_after_every_epoch() -> None:
    class Noisy(TinyObjective):
        def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return super().forward(batch) | {"noise": torch.rand(())}

    objective = Noisy()
    engine = Engine(objective, objective.groups(), train=tiny_config(), total_steps=20, seed=1)
    first = engine.evaluate(tiny_batch(0))["noise"]
    engine.step(tiny_batch(1))
    assert engine.evaluate(tiny_batch(0))["noise"] == first
