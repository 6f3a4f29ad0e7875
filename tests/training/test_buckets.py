"""Buckets that let reduction overlap the backward pass, in real DeepSpeed engines."""

from pathlib import Path
from typing import Any

import pytest

from tests.training.ranks import run_ranks
from tests.training.tiny import TinyObjective, tiny_batch, tiny_config
from uniemo_ray.training import engine as engine_module
from uniemo_ray.training.buckets import BUCKET, Buckets, plan_buckets
from uniemo_ray.training.engine import Engine

TRAINED = 4 * 16 + 16 + 16 + 1
PLANS = {
    "before": Buckets(500_000_000, 1, is_overlapped=False),
    "whole": Buckets(TRAINED, 1, is_overlapped=False),
    "overlapped": Buckets(TRAINED, 2, is_overlapped=True),
    "several": Buckets(17, 2, is_overlapped=True),
}


@pytest.mark.parametrize(
    ("trained", "zero_stage", "has_gpu", "expected"),
    [
        (356_000_000, 1, True, Buckets(BUCKET, 2, True)),
        (356_000_000, 2, True, Buckets(BUCKET, 2, True)),
        (356_000_000, 3, True, Buckets(BUCKET, 1, True)),
        (356_000_000, 0, True, Buckets(BUCKET, 0, False)),
        (97, 1, True, Buckets(97, 2, True)),
        (97, 1, False, Buckets(97, 1, False)),
        (97, 3, False, Buckets(97, 1, False)),
    ],
)
def test_a_bucket_is_never_larger_than_what_trains(
    trained: int, zero_stage: int, has_gpu: bool, expected: Buckets
) -> None:
    assert plan_buckets(trained, zero_stage=zero_stage, has_gpu=has_gpu) == expected


def make(zero_stage: int, **values: Any) -> tuple[Engine, TinyObjective]:
    objective = TinyObjective()
    train = tiny_config(zero_stage=zero_stage, **values)
    return Engine(objective, objective.groups(), train=train, total_steps=20, seed=0), objective


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_the_engine_hands_the_plan_to_deepspeed(zero_stage: int) -> None:
    engine, _ = make(zero_stage)
    has_gpu = engine.device.type != "cpu"
    settings = engine._engine._config.zero_config
    assert settings.reduce_bucket_size == TRAINED
    assert settings.overlap_comm is (has_gpu and zero_stage > 0)
    if zero_stage:
        assert engine._engine.optimizer.reduce_bucket_size == TRAINED


def _all_plans(rank: int) -> None:
    for zero_stage in range(4):
        losses = {}
        for name, plan in PLANS.items():
            engine_module.plan_buckets = lambda *_, plan=plan, **__: plan  # type: ignore[assignment]
            engine, _ = make(zero_stage, micro_batch=2)
            assert engine._engine._config.zero_config.overlap_comm is plan.is_overlapped
            steps = (engine.step({"x": tiny_batch(i)["x"][4 * rank : 4 * rank + 4]}) for i in range(5))
            losses[name] = [value for step in steps for value in step.metrics.values()]
            engine._engine.destroy()
        for name in PLANS:
            assert losses[name] == pytest.approx(losses["before"], rel=1e-6, abs=1e-6), (zero_stage, name)


@pytest.mark.slow
def test_two_ranks_compute_the_same_with_any_buckets(tmp_path: Path) -> None:
    run_ranks(_all_plans, 2, tmp_path)
