"""ZeRO arithmetic, against what a real DeepSpeed engine holds."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.training.tiny import TinyObjective, tiny_batch, tiny_config
from uniemo_ray.sizing.memory import Load, gpu_memory
from uniemo_ray.training import engine as engine_module
from uniemo_ray.training.buckets import BUCKET, plan_buckets
from uniemo_ray.training.engine import Engine

TRAINED, FROZEN = 4 * 16 + 16 + 16 + 1, 2 * 16
"""Of `TinyObjective`: two linear layers, and a frozen layer norm."""
LOAD = Load(trained=TRAINED, frozen=FROZEN, outside=0, activations=None)


def tensors_of(state: object) -> Iterator[torch.Tensor]:
    """Tensors of a nested state, but for step counters, which are scalars."""
    if isinstance(state, torch.Tensor):
        yield from [state] if state.ndim else []
    elif isinstance(state, dict):
        for value in state.values():
            yield from tensors_of(value)


def held(stage: int) -> dict[str, int]:
    """Bytes that DeepSpeed really holds after a step."""
    objective = TinyObjective()
    engine = Engine(objective, objective.groups(), train=tiny_config(zero_stage=stage), total_steps=9, seed=0)
    buckets = _buckets_in_use(engine._engine.optimizer)
    engine.step(tiny_batch(0))
    gradients = _gradients(objective, tiny_batch(1)) if stage == 0 else 0
    optimizer = engine._engine.optimizer
    masters = {
        0: [],
        1: getattr(optimizer, "single_partition_of_fp32_groups", []),
        2: getattr(optimizer, "single_partition_of_fp32_groups", []),
        3: getattr(optimizer, "fp32_partitioned_groups_flat", []),
    }[stage]
    basic = optimizer if stage == 0 else optimizer.optimizer
    return {
        "weights": sum(4 * p.numel() for p in engine._engine.module.parameters()),
        "gradients": gradients,
        "bucket": max(buckets, default=0),
        "master": sum(4 * tensor.numel() for tensor in masters),
        "optimizer": sum(4 * tensor.numel() for tensor in tensors_of(dict(basic.state))),
    }


def _buckets_in_use(optimizer: Any) -> list[int]:
    """Filled by the next step: bytes of the buckets each time that DeepSpeed lets go of them."""
    seen: list[int] = []
    name = "_release_ipg_buffers" if hasattr(optimizer, "_release_ipg_buffers") else "partition_grads"
    if not hasattr(optimizer, name):
        return seen
    release = getattr(optimizer, name)

    def note(*values: Any) -> Any:
        buffers = [bucket.buffer for bucket in optimizer.ipg_buckets.values()]
        lists = [[b] if isinstance(b, torch.Tensor) else b for b in buffers]
        seen.append(sum(b.numel() * b.element_size() for found in lists for b in found))
        return release(*values)

    setattr(optimizer, name, note)
    return seen


def _gradients(objective: TinyObjective, batch: dict[str, torch.Tensor]) -> int:
    """Bytes of gradients after a backward pass."""
    objective(batch)["loss"].backward()
    return sum(4 * p.grad.numel() for p in objective.parameters() if p.grad is not None)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_one_gpu_holds_what_deepspeed_holds(stage: int, monkeypatch: pytest.MonkeyPatch) -> None:
    as_on_gpu = partial(plan_buckets, zero_stage=stage, has_gpu=True)
    monkeypatch.setattr(engine_module, "plan_buckets", lambda trained, **_: as_on_gpu(trained))
    planned = gpu_memory(LOAD, zero_stage=stage, gpus=1)
    real = held(stage)
    # ZeRO pads each group to its alignment: a few numbers a group
    assert planned.optimizer <= real["optimizer"] <= planned.optimizer + 8 * 16
    assert planned.master <= real["master"] <= planned.master + 4 * 16
    assert planned.bucket == real["bucket"]
    if stage < 3:  # ZeRO 3 keeps no whole weights between steps
        assert planned.weights == real["weights"]
    if stage == 0:  # the others move gradients into buffers of their own
        assert planned.gradients == real["gradients"]


def _rank(rank: int, folder: str) -> None:
    os.environ.update(LOCAL_RANK=str(rank), RANK=str(rank), WORLD_SIZE="2", DS_ACCELERATOR="cpu")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    real = {stage: held(stage) for stage in (1, 2)}
    torch.save(real, Path(folder) / f"{rank}.pt")
    dist.barrier()
    os._exit(0)  # threads of gloo and DeepSpeed may still be at work, and an orderly end then aborts


@pytest.mark.slow
def test_two_gpus_hold_half_each(tmp_path: Path) -> None:
    mp.spawn(_rank, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        for stage, real in torch.load(tmp_path / f"{rank}.pt", weights_only=True).items():
            planned = gpu_memory(LOAD, zero_stage=stage, gpus=2)
            assert planned.optimizer <= real["optimizer"] <= planned.optimizer + 8 * 16
            assert planned.master <= real["master"] <= planned.master + 4 * 16


def test_what_each_zero_stage_splits() -> None:
    load = Load(trained=1000, frozen=200, outside=70, activations=50)
    rows = [gpu_memory(load, zero_stage=stage, gpus=4) for stage in range(4)]
    assert [row.weights for row in rows] == [4800, 4800, 4800, 4 * (300 + 1200)]
    assert [row.master for row in rows] == [0, 1000, 1000, 1000]
    assert [row.gradients for row in rows] == [4000, 4000, 1000, 1000]
    assert [row.optimizer for row in rows] == [8000, 2000, 2000, 2000]
    assert [row.bucket for row in rows] == [0, 8000, 8000, 4000]
    assert {row.frozen for row in rows} == {70}
    assert rows[0].total == 4800 + 4000 + 8000 + 70 + 50 + rows[0].reserve


def test_a_large_model_is_gathered_in_parts() -> None:
    load = Load(trained=3_000_000_000, frozen=0, outside=0, activations=None)
    assert gpu_memory(load, zero_stage=3, gpus=8).weights == 4 * (375_000_000 + 1_000_000_000)


def test_an_average_of_the_weights_is_split_like_the_moments() -> None:
    load = Load(trained=1000, frozen=200, outside=70, activations=50, is_averaged=True)
    rows = [gpu_memory(load, zero_stage=stage, gpus=4) for stage in range(4)]
    assert [row.average for row in rows] == [4000, 1000, 1000, 1000]
    assert rows[0].total == 4800 + 4000 + 8000 + 4000 + 70 + 50 + rows[0].reserve


def test_buckets_of_a_large_model_have_their_own_size() -> None:
    load = Load(trained=3_000_000_000, frozen=0, outside=0, activations=None)
    rows = [gpu_memory(load, zero_stage=stage, gpus=8).bucket for stage in range(4)]
    assert rows == [0, 8 * BUCKET, 8 * BUCKET, 4 * BUCKET]


@pytest.mark.parametrize(("stage", "gpus"), [(4, 1), (1, 0)])
def test_impossible_settings_are_named(stage: int, gpus: int) -> None:
    with pytest.raises(ValueError, match=f"got ZeRO {stage} on {gpus}"):
        gpu_memory(LOAD, zero_stage=stage, gpus=gpus)
