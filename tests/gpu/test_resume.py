"""A saved engine goes on as if it had never stopped, with its own or another number of workers."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.gpu.device import cards
from tests.gpu.models import BATCH, batch, part, understanding_engine
from tests.gpu.ranks import run_ranks

pytestmark = pytest.mark.gpu
ZERO_STAGES = [0, 1, 2, 3]
SAVED, STEPS = 2, 4
NEAR = {"fp32": 1e-4, "bf16": 5e-3, "fp16": 1e-3}
"""How far a value may be from that of a straight run, as a share of it: GPUs add in no fixed order."""
IS_WORLD_FREE = find_spec("uniemo_ray.training.checkpoint") is not None
MISSING = "checkpoints still belong to the number of workers that wrote them"


@pytest.mark.parametrize(
    ("zero_stage", "precision"),
    [*((stage, kind) for kind in ("fp32", "bf16") for stage in ZERO_STAGES), (1, "fp16")],
)
def test_losses_go_on(zero_stage: int, precision: str, tmp_path: Path, process_group: None) -> None:
    straight = understanding_engine(zero_stage=zero_stage, precision=precision)
    for number in range(SAVED):
        straight.step(batch(number))
    straight.save(tmp_path)
    expected = [straight.step(batch(number)).metrics for number in range(SAVED, STEPS)]
    resumed = understanding_engine(zero_stage=zero_stage, precision=precision, seed=9)
    resumed.load(tmp_path)
    assert resumed.steps == SAVED
    for number, metrics in zip(range(SAVED, STEPS), expected, strict=True):
        found = resumed.step(batch(number)).metrics
        for name in ("loss", "gradient_norm", "lr_factor"):
            assert found[name] == pytest.approx(metrics[name], rel=NEAR[precision])


def write(rank: int, ranks: int, folder: Path) -> None:
    """A checkpoint of each ZeRO stage, and the losses of the steps after it."""
    losses = {}
    for zero_stage in ZERO_STAGES:
        engine = understanding_engine(zero_stage=zero_stage, micro_batch=BATCH // 2)
        for number in range(SAVED):
            engine.step(part(batch(number), rank, ranks))
        path = folder / f"zero-{zero_stage}"
        path.mkdir(exist_ok=True)
        engine.save(path)
        losses[zero_stage] = [
            engine.step(part(batch(number), rank, ranks)).metrics["loss"] for number in range(SAVED, STEPS)
        ]
    if rank == 0:
        (folder / "written.json").write_text(json.dumps(losses))


def read(rank: int, ranks: int, folder: Path) -> None:
    """Go on from each checkpoint."""
    losses = {}
    for zero_stage in ZERO_STAGES:
        engine = understanding_engine(zero_stage=zero_stage, seed=9, micro_batch=BATCH // 2)
        engine.load(folder / f"zero-{zero_stage}")
        losses[zero_stage] = [
            engine.step(part(batch(number), rank, ranks)).metrics["loss"] for number in range(SAVED, STEPS)
        ]
    if rank == 0:
        (folder / "read.json").write_text(json.dumps(losses))


@pytest.mark.parametrize(("writers", "readers"), [(2, 1), (1, 2)])
def test_another_number_of_workers_goes_on(writers: int, readers: int, tmp_path: Path) -> None:
    if not IS_WORLD_FREE:
        pytest.skip(MISSING)
    if cards() < 2:
        pytest.skip("one GPU: two workers need two")
    assert BATCH % 2 == 0
    run_ranks(write, writers, tmp_path)
    run_ranks(read, readers, tmp_path)
    written, found = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("written", "read"))
    for zero_stage, losses in written.items():
        assert found[zero_stage] == pytest.approx(losses, rel=NEAR["fp32"]), f"ZeRO {zero_stage}"
