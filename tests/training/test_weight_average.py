"""The average of the weights: its values, its place in checkpoints, and what it stands in for."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.ranks import run_ranks
from tests.training.tiny import TinyObjective, tiny_batch, tiny_config
from uniemo_ray.training.engine import Engine
from uniemo_ray.training.weight_average import decay_at

STEPS = 4
ROWS = 6


def make(zero_stage: int, decay: float | None = 0.3) -> tuple[Engine, TinyObjective]:
    objective = TinyObjective(dropout=0.0)
    train = tiny_config(zero_stage=zero_stage, batch_size=ROWS, ema_decay=decay)
    return Engine(objective, objective.groups(), train=train, total_steps=20, seed=0), objective


def step(engine: Engine, number: int) -> None:
    share = ROWS // engine.world_size
    own = slice(engine.rank * share, (engine.rank + 1) * share)
    engine.step({"x": tiny_batch(number, ROWS)["x"][own]}, images=ROWS)


def averaged(engine: Engine, objective: TinyObjective) -> dict[str, Tensor]:
    with engine.averaged_weights():
        return engine.state_dict(objective.net)


def by_hand(decay: float = 0.3) -> dict[str, Tensor]:
    """The average by its definition, from an engine that keeps none."""
    engine, objective = make(0, None)
    average = engine.state_dict(objective.net)
    for number in range(STEPS):
        step(engine, number)
        kept = decay_at(number + 1, decay)
        for name, value in engine.state_dict(objective.net).items():
            average[name] = kept * average[name] + (1 - kept) * value
    return average


def test_the_decay_grows_to_its_value() -> None:
    assert [decay_at(step, 0.9999) for step in (1, 8)] == [2 / 11, 0.5]
    assert decay_at(10**6, 0.9999) == 0.9999


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_it_is_the_average_and_training_does_not_notice(zero_stage: int) -> None:
    (engine, mine), (plain, theirs) = make(zero_stage), make(zero_stage, None)
    for number in range(STEPS):
        step(engine, number)
        step(plain, number)
        with engine.averaged_weights():
            engine.evaluate(tiny_batch(9, ROWS))
    trained = engine.state_dict(mine.net)
    assert all(torch.equal(trained[name], value) for name, value in plain.state_dict(theirs.net).items())
    found = averaged(engine, mine)
    for name, value in by_hand().items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)
    assert not torch.equal(found["0.weight"], trained["0.weight"])


@pytest.mark.parametrize("zero_stage", [1, 3])
def test_evaluation_sees_the_average(zero_stage: int) -> None:
    engine, objective = make(zero_stage)
    for number in range(STEPS):
        step(engine, number)
    with engine.averaged_weights():
        found = engine.evaluate(tiny_batch(9, ROWS))
    reference = TinyObjective(dropout=0.0).eval()
    reference.net.load_state_dict(averaged(engine, objective))
    assert found["loss"] == pytest.approx(float(reference(tiny_batch(9, ROWS))["loss"]), rel=1e-5)
    assert engine.evaluate(tiny_batch(9, ROWS)) != found


def test_a_checkpoint_without_it_is_refused(tmp_path: Path) -> None:
    engine, _ = make(1, None)
    step(engine, 0)
    engine.save(tmp_path)
    with pytest.raises(ValueError, match="holds no averaged weights, but ema_decay is set"):
        make(1)[0].load(tmp_path)


def _part(_rank: int, zero_stage: int, first: int, last: int, folder: str, result: str) -> None:
    engine, objective = make(zero_stage)
    if first:
        engine.load(Path(folder) / f"step-{first}")
    for number in range(first, last):
        step(engine, number)
    (target := Path(folder) / f"step-{last}").mkdir(exist_ok=True)
    engine.save(target)
    found: dict[str, Any] = averaged(engine, objective)
    if engine.rank == 0:
        torch.save(found, result)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(0, 3), (1, 2), (3, 1)])
def test_it_goes_on_with_other_ranks_and_zero_stages(before: int, after: int, tmp_path: Path) -> None:
    """2 ranks under one ZeRO stage, then 1 and 3 under another: the average of a straight run."""
    result = str(tmp_path / "result.pt")
    for ranks, zero_stage, first in ((2, before, 0), (1, after, 2), (3, after, 3)):
        last = {0: 2, 2: 3, 3: STEPS}[first]
        run_ranks(_part, ranks, tmp_path, zero_stage, first, last, str(tmp_path), result)
    found = torch.load(result, weights_only=True)
    for name, value in by_hand().items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)
