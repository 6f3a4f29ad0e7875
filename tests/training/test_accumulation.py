"""A step in chunks is the step without: one contrast over the batch, whatever passes the network at once."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.accumulation import (
    MICRO_BATCH,
    ROWS,
    Outcome,
    make,
    reference,
    stage_settings,
    take_leg,
    train_in_chunks,
)
from tests.training.ranks import run_ranks

STAGES = [0, 1, 2, 3]
HEADS = {"joint_attributes": "heads"}


def check(found: Outcome, expected: Outcome, *, atol: float) -> None:
    for mine, theirs in zip(found[0], expected[0], strict=True):
        for name, value in theirs.items():
            assert mine[name] == pytest.approx(value, abs=atol, rel=atol), name
    assert found[1].keys() == expected[1].keys()
    for name, value in expected[1].items():
        got = found[1][name]
        if name.endswith("in_proj_bias"):
            # The exact gradient of the keys' biases is 0, and AdamW makes whole steps of its rounding.
            got, value = (torch.cat(bias.chunk(3)[::2]) for bias in (got, value))
        torch.testing.assert_close(got, value, atol=atol, rtol=atol, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize(
    ("stage", "losses"),
    [
        ("understanding", {}),
        ("understanding", {"contrast": "worker", "is_symmetric": True, "missing_attribute": "negative"}),
        ("joint", {}),
        ("joint", HEADS),
    ],
)
def test_chunks_train_as_the_whole_batch(
    folders: dict[str, Path], tmp_path: Path, stage: str, losses: dict[str, Any], workers: int
) -> None:
    """Three steps of AdamW with dropout and noise, equal to 1e-6."""
    values = stage_settings(folders, stage, losses)
    run_ranks(train_in_chunks, workers, tmp_path, values, STAGES, 3, tmp_path / "found.pt")
    expected = reference(values, steps=3, workers=workers)
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    assert set(found) == set(STAGES)
    for metrics, weights, _ in found.values():
        check((metrics, weights), expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["understanding", "joint"])
def test_legs_of_2_1_2_and_3_workers_are_the_straight_run(
    folders: dict[str, Path], tmp_path: Path, stage: str
) -> None:
    """Each leg goes on from the checkpoint of the one before; dropout and noise are those of the chunks."""
    values = stage_settings(folders, stage, {})
    for leg, workers in enumerate((2, 1, 2, 3)):
        run_ranks(take_leg, workers, tmp_path, values, STAGES, leg, 2, tmp_path)
    straight, parts, batch = make(values, zero_stage=0)
    metrics = [straight.step(batch).metrics for _ in range(8)]
    expected = metrics, straight.state_dict(parts.objective)
    for zero_stage in STAGES:
        legs = [
            torch.load(tmp_path / f"{zero_stage}-{leg}" / "found.pt", weights_only=True) for leg in range(4)
        ]
        check(([step for leg in legs for step in leg[0]], legs[-1][1]), expected, atol=1e-5)


def test_fp16_in_chunks_follows_fp32(folders: dict[str, Path]) -> None:
    """Also through overflows, which take the same chunks again."""
    values = stage_settings(folders, "understanding", {})
    (half, _, batch), (full, _, _) = (
        make(values, zero_stage=1, precision=precision) for precision in ("fp16", "fp32")
    )
    for _ in range(3):
        found, expected = (engine.step(batch).metrics for engine in (half, full))
        assert found["loss"] == pytest.approx(expected["loss"], rel=2e-2)
        assert found["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=5e-2)
        assert found != expected
    assert half.steps == 3


@pytest.mark.parametrize("stage", ["understanding", "joint"])
def test_one_chunk_is_the_step_of_before_to_the_bit(folders: dict[str, Path], stage: str) -> None:
    values = stage_settings(folders, stage, {})
    (chunked, _, batch), (plain, _, _) = (
        make(values, zero_stage=1, micro_batch=size) for size in (ROWS, None)
    )
    assert [chunked.step(batch) for _ in range(2)] == [plain.step(batch) for _ in range(2)]


@pytest.mark.parametrize(("losses", "passes"), [({}, 2), (HEADS, 1)])
def test_only_a_contrast_takes_a_pass_of_its_own(
    folders: dict[str, Path], losses: dict[str, Any], passes: int
) -> None:
    engine, parts, batch = make(stage_settings(folders, "joint", losses), zero_stage=0)
    calls: list[int] = []
    parts.exports["net"].register_forward_hook(lambda *_: calls.append(1))
    engine.step(batch)
    assert len(calls) == passes * -(-ROWS // MICRO_BATCH)


def test_a_chunk_holds_the_memory_of_a_chunk(folders: dict[str, Path]) -> None:
    """Of what autograd keeps at a time; the cached embeddings are small."""
    kept = {}
    for size in (1, 3, None):
        engine, _, batch = make(stage_settings(folders, "understanding", {}), zero_stage=0, micro_batch=size)
        meter = _Meter()
        with torch.autograd.graph.saved_tensors_hooks(meter.pack, meter.unpack):
            engine.step(batch)
        kept[size] = meter.most
    assert kept[1] < kept[3] < kept[None] / 3


class _Meter:
    """Bytes that autograd keeps at a time, as sum over what the graph still holds."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def pack(self, tensor: torch.Tensor) -> "_Kept":
        if tensor.requires_grad and tensor.is_leaf:
            return _Kept(tensor, self, 0)
        return _Kept(tensor, self, tensor.numel() * tensor.element_size())

    def unpack(self, kept: "_Kept") -> torch.Tensor:
        return kept.tensor


class _Kept:
    def __init__(self, tensor: torch.Tensor, meter: _Meter, size: int) -> None:
        self.tensor, self.meter, self.size = tensor, meter, size
        meter.now += size
        meter.most = max(meter.most, meter.now)

    def __del__(self) -> None:
        self.meter.now -= self.size
