"""Training in every number format and under every ZeRO stage stays near fp32; what TF32 does."""

import math

import pytest
import torch

from tests.gpu.models import batch, understanding_engine
from tests.training.test_engine import check_fp16

pytestmark = pytest.mark.gpu
STEPS = 3
NEAR = {"fp32": 2e-3, "bf16": 5e-2, "fp16": 2e-2}
"""How far a loss may be from fp32's, as a share of it."""
CASES = [
    (zero_stage, precision)
    for precision in NEAR
    for zero_stage in range(4)
    if (precision, zero_stage) != ("fp16", 0)  # refused: it needs ZeRO's loss scale
]


def losses(zero_stage: int, precision: str) -> list[float]:
    engine = understanding_engine(zero_stage=zero_stage, precision=precision)
    return [engine.step(batch(number)).metrics["loss"] for number in range(STEPS)]


@pytest.fixture(scope="module")
def exact(process_group: None) -> list[float]:
    return losses(0, "fp32")


@pytest.mark.parametrize(("zero_stage", "precision"), CASES)
def test_losses_are_near_those_of_fp32(zero_stage: int, precision: str, exact: list[float]) -> None:
    found = losses(zero_stage, precision)
    assert all(math.isfinite(loss) for loss in found)
    assert found == pytest.approx(exact, rel=NEAR[precision])
    assert precision == "fp32" or found != exact


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_fp16_follows_fp32(zero_stage: int, process_group: None) -> None:
    check_fp16(zero_stage)


def test_engines_are_on_the_device(process_group: None, device: str) -> None:
    engine = understanding_engine(zero_stage=1)
    assert engine.device.type == device
    assert {p.device.type for p in engine._engine.module.parameters()} == {device}


def test_tf32_is_on_or_off_as_it_was_set(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for backend in (torch.backends.cuda.matmul, torch.backends.cudnn):  # as it was, after the test
        monkeypatch.setattr(backend, "allow_tf32", backend.allow_tf32)
    devices = pytest.importorskip("uniemo_ray.devices", reason="there is no setting of TF32 yet")
    torch.manual_seed(0)
    left, right = torch.randn(2, 512, 512, device=device)
    exact = left.double() @ right.double()
    errors = {}
    for is_on in (False, True):
        devices.set_tf32(is_on)
        errors[is_on] = float((left @ right - exact).abs().max() / exact.abs().max())
    assert errors[False] < 1e-5
    knows_tf32 = device == "cuda" and torch.cuda.get_device_capability() >= (8, 0)
    assert (1e-5 < errors[True] < 1e-2) if knows_tf32 else errors[True] == errors[False]
