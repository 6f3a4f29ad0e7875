import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.training.tiny import TinyObjective, tiny_batch, tiny_config
from uniemo_ray.seeds import hash_seed
from uniemo_ray.training.buckets import plan_buckets
from uniemo_ray.training.deepspeed_settings import deepspeed_config
from uniemo_ray.training.engine import Engine
from uniemo_ray.training.half_precision import LossScale
from uniemo_ray.training.schedule import rate_factor
from uniemo_ray.training.step_values import NonFiniteLossError

STAGES = [0, 1, 2, 3]


def make(stage: int, *, precision: str = "fp32", seed: int = 0) -> tuple[Engine, TinyObjective]:
    objective = TinyObjective()
    train = tiny_config(zero_stage=stage, precision=precision)
    return Engine(objective, objective.groups(), train=train, total_steps=20, seed=seed), objective


def weights(engine: Engine, objective: TinyObjective) -> dict[str, torch.Tensor]:
    return engine.state_dict(objective.net)


def test_deepspeed_json_follows_our_settings() -> None:
    buckets = plan_buckets(97, zero_stage=2, has_gpu=True)
    train = tiny_config(batch_size=12, zero_stage=2, gradient_clip=0.5)
    config = deepspeed_config(train, world_size=3, precision="fp32", buckets=buckets)
    assert json.loads(json.dumps(config)) == config
    assert config["train_micro_batch_size_per_gpu"] == 4
    assert config["zero_optimization"] == {"stage": 2, "reduce_bucket_size": 97, "overlap_comm": True}
    assert config["gradient_clipping"] == 0.5
    assert "torch_autocast" not in config
    bf16 = deepspeed_config(tiny_config(), world_size=1, precision="bf16", buckets=buckets)
    assert bf16["torch_autocast"]["dtype"] == "bfloat16"


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_all_stages_take_the_same_steps(stage: int) -> None:
    """ZeRO only partitions: stage k equals plain AdamW with clipping, warm-up and cosine."""
    engine, objective = make(stage)
    losses = [engine.step(tiny_batch(i)).metrics["loss"] for i in range(6)]
    reference = TinyObjective()
    optimizer = torch.optim.AdamW([p for p in reference.parameters() if p.requires_grad], weight_decay=0.0)
    for i, loss in enumerate(losses):
        for group in optimizer.param_groups:
            group["lr"] = 3e-2 * rate_factor(i, total=20, warmup=3, kind="cosine")
        torch.manual_seed(hash_seed(0, "step", i, 0))
        optimizer.zero_grad()
        expected = reference(tiny_batch(i))["loss"]
        expected.backward()
        torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
        optimizer.step()
        assert loss == pytest.approx(expected.item(), rel=1e-4)
    for name, value in weights(engine, objective).items():
        torch.testing.assert_close(value, reference.net.state_dict()[name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 3])
def test_bf16_computes_in_bf16_and_keeps_fp32_weights(stage: int) -> None:
    engine, objective = make(stage, precision="bf16")
    first = weights(engine, objective)
    losses = [engine.step(tiny_batch(i % 2)).metrics["loss"] for i in range(20)]
    last = weights(engine, objective)
    assert losses[-1] < losses[0]
    assert all(value.dtype == torch.float32 for value in last.values())
    exact, _ = make(stage)
    assert exact.step(tiny_batch(0)).metrics["loss"] != losses[0]
    # fp32 masters: an update far below bf16's resolution is not lost
    assert not torch.equal(last["0.weight"], last["0.weight"].bfloat16().float())
    assert torch.equal(first["1.weight"], last["1.weight"])


class _SmallGradients(TinyObjective):
    """Activations whose gradients lie below fp16's smallest number."""

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: loss * 1e-8 for name, loss in super().forward(batch).items()}


def check_fp16(stage: int) -> None:
    """fp16 follows fp32 up to rounding: also through overflows, and where gradients would underflow."""
    (half, mine), (full, theirs) = (make(stage, precision=kind) for kind in ("fp16", "fp32"))
    for i in range(12):
        found, expected = (engine.step(tiny_batch(i % 2)).metrics for engine in (half, full))
        assert found["loss"] == pytest.approx(expected["loss"], rel=5e-3)
        assert found["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=5e-3)
        assert found != expected
    assert half.steps == full.steps == 12
    assert half._scale is not None
    assert half._scale.value < 2**16  # it did overflow on the way
    last = weights(half, mine)
    assert all(value.dtype == torch.float32 for value in last.values())
    for name, value in weights(full, theirs).items():
        torch.testing.assert_close(last[name], value, atol=5e-3, rtol=5e-2)
    norms = []
    for kind in ("fp16", "fp32"):
        objective, train = _SmallGradients(), tiny_config(zero_stage=stage, precision=kind)
        engine = Engine(objective, objective.groups(), train=train, total_steps=20, seed=0)
        norms.append(engine.step(tiny_batch(0)).metrics["gradient_norm"])
    assert norms[0] == pytest.approx(norms[1], rel=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES[1:])
def test_fp16_follows_fp32(stage: int) -> None:
    check_fp16(stage)


def test_fp16_without_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="precision fp16 needs zero_stage 1, 2 or 3"):
        tiny_config(zero_stage=0, precision="fp16")


@pytest.mark.parametrize("stage", STAGES[1:])
def test_an_infinite_gradient_stops_in_fp16_too(stage: int) -> None:
    objective, train = _InfiniteGradient(), tiny_config(zero_stage=stage, precision="fp16")
    engine = Engine(objective, objective.groups(), train=train, total_steps=5, seed=0)
    with pytest.raises(NonFiniteLossError, match="gradient is not finite at step 0"):
        engine.step(tiny_batch(0))
    assert engine._scale is not None
    assert engine._scale.value == 1


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 3])
def test_a_checkpoint_keeps_the_loss_scale(stage: int, tmp_path: Path) -> None:
    straight, _ = make(stage, precision="fp16")
    for i in range(3):
        straight.step(tiny_batch(i))
    straight.save(tmp_path)
    resumed, _ = make(stage, precision="fp16")
    resumed.load(tmp_path)
    assert resumed._scale is not None
    assert straight._scale is not None
    assert resumed._scale.state() == straight._scale.state() != LossScale().state()
    assert [resumed.step(tiny_batch(i)).metrics for i in range(3, 6)] == [
        straight.step(tiny_batch(i)).metrics for i in range(3, 6)
    ]


@pytest.mark.parametrize("stage", STAGES)
def test_resume_equals_a_straight_run(stage: int, tmp_path: Path) -> None:
    straight, objective = make(stage)
    for i in range(3):
        straight.step(tiny_batch(i))
    straight.save(tmp_path)
    expected = [straight.step(tiny_batch(i)).metrics for i in range(3, 6)]
    resumed, other = make(stage)
    resumed.load(tmp_path)
    assert resumed.steps == 3
    assert [resumed.step(tiny_batch(i)).metrics for i in range(3, 6)] == expected
    for name, value in weights(resumed, other).items():
        assert torch.equal(value, weights(straight, objective)[name])


def test_loading_an_empty_folder_says_so(tmp_path: Path) -> None:
    engine, _ = make(1)
    with pytest.raises(ValueError, match="holds no checkpoint"):
        engine.load(tmp_path)


@pytest.mark.parametrize("stage", STAGES)
def test_non_finite_loss_stops_before_the_weights_change(stage: int) -> None:
    engine, objective = make(stage)
    engine.step(tiny_batch(0))
    before = weights(engine, objective)
    bad = {"x": torch.full((8, 4), float("nan"))}
    with pytest.raises(NonFiniteLossError, match=r"step 1.*loss nan"):
        engine.step(bad)
    after = weights(engine, objective)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert engine.steps == 1


class _InfiniteGradient(TinyObjective):
    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"loss": (self.net[4].weight * 0).sum().sqrt() + self.net(batch["x"]).sum() * 0}


@pytest.mark.parametrize("stage", STAGES)
def test_non_finite_gradient_stops(stage: int) -> None:
    objective = _InfiniteGradient()
    engine = Engine(objective, objective.groups(), train=tiny_config(zero_stage=stage), total_steps=5, seed=0)
    with pytest.raises(NonFiniteLossError, match="gradient is not finite at step 0"):
        engine.step(tiny_batch(0))


def test_frozen_parameters_stay_and_have_no_optimizer_state() -> None:
    engine, objective = make(1)
    before = weights(engine, objective)
    for i in range(3):
        engine.step(tiny_batch(i))
    after = weights(engine, objective)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"0.weight", "0.bias", "4.weight", "4.bias"}
    sizes = [sum(p.numel() for p in group["params"]) for group in engine._engine.optimizer.param_groups]
    assert sizes == [4 * 16 + 16, 16 + 1 + 1]  # ZeRO pads to an even number


def test_nothing_to_train_is_an_error() -> None:
    objective = TinyObjective().requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        Engine(objective, objective.groups(), train=tiny_config(), total_steps=5, seed=0)


def test_groups_keep_their_own_rates() -> None:
    objective = TinyObjective()
    groups = objective.groups()
    groups[0]["lr"] = 0.0
    engine = Engine(objective, groups, train=tiny_config(), total_steps=5, seed=0)
    before = weights(engine, objective)
    engine.step(tiny_batch(0))
    after = weights(engine, objective)
    assert torch.equal(before["0.weight"], after["0.weight"])
    assert not torch.equal(before["4.weight"], after["4.weight"])


def test_evaluation_has_no_dropout_and_changes_nothing() -> None:
    engine, objective = make(2)
    before = weights(engine, objective)
    first, second = engine.evaluate(tiny_batch(1)), engine.evaluate(tiny_batch(1))
    assert first == second
    objective.eval()
    assert first["loss"] == pytest.approx(objective(tiny_batch(1))["loss"].item(), rel=1e-5)
    assert all(torch.equal(before[name], value) for name, value in weights(engine, objective).items())


@pytest.mark.slow
def test_no_compiler_is_needed(tmp_path: Path) -> None:
    """With an empty PATH there is no compiler; the op cache stays empty."""
    code = (
        "from tests.training.test_engine import make, tiny_batch\n"
        "for stage in (1, 3):\n"
        "    make(stage)[0].step(tiny_batch(0))\n"
    )
    environment = {**os.environ, "PATH": "", "TORCH_EXTENSIONS_DIR": str(tmp_path), "PYTHONPATH": os.getcwd()}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)
    assert not any(os.scandir(tmp_path))


@pytest.mark.parametrize("can", [True, False])
def test_auto_is_what_the_processor_can(monkeypatch: pytest.MonkeyPatch, can: bool) -> None:
    monkeypatch.setattr("uniemo_ray.training.deepspeed_settings.has_bf16", lambda: can)
    engine, _ = make(1, precision="auto")
    same, _ = make(1, precision="bf16" if can else "fp32")
    other, _ = make(1, precision="fp32" if can else "bf16")
    loss = engine.step(tiny_batch(0)).metrics["loss"]
    assert loss == same.step(tiny_batch(0)).metrics["loss"]
    assert loss != other.step(tiny_batch(0)).metrics["loss"]
