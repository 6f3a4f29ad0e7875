"""Checkpoints that any number of ranks under any ZeRO stage can read."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.ranks import run_ranks
from tests.training.tiny import TinyObjective, tiny_batch, tiny_config
from uniemo_ray.sizing.workload import STATE_BYTES
from uniemo_ray.training import checkpoint
from uniemo_ray.training.checkpoint import (
    INDEX,
    CheckpointReader,
    Index,
    ParameterRecord,
    Piece,
    write_index,
    write_pieces,
)
from uniemo_ray.training.engine import Engine

STAGES = [0, 1, 2, 3]
ROWS = 12
Outcome = tuple[list[dict[str, float]], dict[str, torch.Tensor]]


def make(stage: int, *, seed: int = 0, precision: str = "fp32") -> tuple[Engine, TinyObjective]:
    objective = TinyObjective(seed=seed, dropout=0.0)
    train = tiny_config(zero_stage=stage, batch_size=ROWS, precision=precision)
    return Engine(objective, objective.groups(), train=train, total_steps=20, seed=0), objective


def steps(engine: Engine, numbers: range) -> list[dict[str, float]]:
    """Metrics of some steps, each on this rank's third, half or whole of the same 12 rows."""
    size = ROWS // engine.world_size
    own = slice(engine.rank * size, (engine.rank + 1) * size)
    return [engine.step({"x": tiny_batch(i, ROWS)["x"][own]}).metrics for i in numbers]


def write(_rank: int, folder: Path) -> None:
    """Three steps under every ZeRO stage, and a checkpoint of each."""
    for stage in STAGES:
        engine, _ = make(stage)
        steps(engine, range(3))
        path = folder / str(stage)
        path.mkdir(exist_ok=True)
        engine.save(path)


def go_on(rank: int, folder: Path, name: str) -> None:
    """Two more steps from each stage's checkpoint under each stage; fresh weights differ: all is loaded."""
    found: dict[str, Outcome] = {}
    for written in STAGES:
        for stage in STAGES:
            engine, objective = make(stage, seed=9)
            engine.load(folder / str(written))
            assert engine.steps == 3
            metrics = steps(engine, range(3, 5))
            found[f"{written} to {stage}"] = metrics, engine.state_dict(objective)
    if rank == 0:
        torch.save(found, folder / name)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [(2, 1), (2, 3), (3, 2), (1, 3)])
def test_other_ranks_and_stages_go_on_as_if_never_stopped(ranks: tuple[int, int], tmp_path: Path) -> None:
    writers, readers = ranks
    run_ranks(write, writers, tmp_path, tmp_path)
    run_ranks(go_on, readers, tmp_path, tmp_path, "found.pt")
    straight, objective = make(1)
    expected = steps(straight, range(5))[3:]
    weights = straight.state_dict(objective)
    found: dict[str, Any] = torch.load(tmp_path / "found.pt", weights_only=True)
    assert len(found) == 16
    for metrics, values in found.values():
        for mine, theirs in zip(metrics, expected, strict=True):
            assert mine == pytest.approx(theirs, abs=1e-5)
        assert values.keys() == weights.keys()
        for name, value in values.items():
            torch.testing.assert_close(value, weights[name], atol=1e-5, rtol=0)


@pytest.mark.slow
def test_each_rank_writes_its_part(tmp_path: Path) -> None:
    run_ranks(write, 3, tmp_path, tmp_path)
    for stage in STAGES:
        files = sorted((tmp_path / str(stage)).glob("*.safetensors"))
        assert [path.name[:21] for path in files] == [f"engine-0000{rank}-of-00003" for rank in range(3)]
        sizes = [path.stat().st_size for path in files]
        assert max(sizes) < 2 * min(sizes)
        assert CheckpointReader(tmp_path / str(stage)).names("weight") == {
            "net.0.weight",
            "net.0.bias",
            "net.4.weight",
            "net.4.bias",
        }


def fill(folder: Path, *, world_size: int = 2) -> torch.Tensor:
    """One parameter of 10 numbers, in the pieces of two ranks."""
    values = torch.arange(10.0)
    for rank, start in enumerate((0, 4)):
        stop = 4 if start == 0 else 10
        pieces = [Piece("weight", "a/b", start, values[start:stop])]
        write_pieces(folder, pieces, rank=rank, world_size=world_size)
    write_index(folder, Index(world_size, 5, {"a/b": ParameterRecord((2, 5), 5)}, {}))
    return values


def test_any_range_is_read_across_pieces(tmp_path: Path) -> None:
    values = fill(tmp_path)
    reader = CheckpointReader(tmp_path)
    assert reader.index == Index(2, 5, {"a/b": ParameterRecord((2, 5), 5)}, {})
    for start in range(10):
        for stop in range(start + 1, 11):
            assert torch.equal(reader.read("weight", "a/b", start, stop), values[start:stop])


def test_files_of_another_number_of_ranks_are_not_read(tmp_path: Path) -> None:
    fill(tmp_path)
    stray = [Piece("weight", "a/b", 0, torch.full((10,), -1.0))]
    write_pieces(tmp_path, stray, rank=0, world_size=7)
    assert CheckpointReader(tmp_path).read("weight", "a/b", 0, 10).tolist() == list(range(10))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    fill(tmp_path)
    next(tmp_path.glob("engine-00001-*")).unlink()
    with pytest.raises(ValueError, match="lacks a part of weight of a/b: the file of a worker is missing"):
        CheckpointReader(tmp_path).read("weight", "a/b", 0, 10)


def test_files_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FILE_BYTES", 100)
    values = torch.randn(6, 20)
    pieces = [Piece("exp_avg", str(i), 0, row) for i, row in enumerate(values)]  # 80 bytes each
    write_pieces(tmp_path, iter(pieces), rank=0, world_size=1)
    write_index(tmp_path, Index(1, 0, {}, {}))
    assert len(list(tmp_path.glob("*.safetensors"))) == 6
    reader = CheckpointReader(tmp_path)
    assert all(torch.equal(reader.read("exp_avg", str(i), 0, 20), row) for i, row in enumerate(values))


def test_an_old_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    with pytest.raises(ValueError, match=r"older version of uniemo_ray.*remove the stage's folder"):
        make(1)[0].load(tmp_path)


def test_a_newer_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    fill(tmp_path)
    values = json.loads((tmp_path / INDEX).read_text())
    (tmp_path / INDEX).write_text(json.dumps(values | {"format": 2}))
    with pytest.raises(ValueError, match="has format 2 and this version of uniemo_ray reads format 1"):
        make(1)[0].load(tmp_path)


def test_another_model_is_refused(tmp_path: Path) -> None:
    make(1)[0].save(tmp_path)
    wider = torch.nn.Linear(8, 16)
    objective = TinyObjective()
    objective.net[0] = wider
    engine = Engine(objective, objective.groups(), train=tiny_config(), total_steps=20, seed=0)
    with pytest.raises(ValueError, match=r"net\.0\.weight is \(16, 4\) in it and \(16, 8\) in the model"):
        engine.load(tmp_path)
    objective = TinyObjective()
    objective.net[1].requires_grad_(True)
    groups = [{"name": "all", "params": list(objective.parameters()), "lr": 1e-3, "weight_decay": 0.0}]
    engine = Engine(objective, groups, train=tiny_config(), total_steps=20, seed=0)
    with pytest.raises(ValueError, match=r"the checkpoint lacks net\.1\.bias"):
        engine.load(tmp_path)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_checkpoint_fits_every_precision(precision: str, tmp_path: Path) -> None:
    straight, objective = make(1, precision=precision)
    steps(straight, range(2))
    straight.save(tmp_path)
    other, theirs = make(3, seed=9)
    other.load(tmp_path)
    for name, value in other.state_dict(theirs).items():
        assert torch.equal(value, straight.state_dict(objective)[name])


class _Counting(TinyObjective):
    """A buffer that training changes."""

    seen: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        self.seen += len(batch["x"])
        return super().forward(batch)


@pytest.mark.parametrize("stage", [1, 3])
def test_buffers_come_back(stage: int, tmp_path: Path) -> None:
    objectives = [_Counting(), _Counting()]
    engines = [
        Engine(objective, objective.groups(), train=tiny_config(zero_stage=stage), total_steps=20, seed=0)
        for objective in objectives
    ]
    steps(engines[0], range(2))
    engines[0].save(tmp_path)
    engines[1].load(tmp_path)
    assert [int(objective.seen) for objective in objectives] == [24, 24]


class _Wide(TinyObjective):
    """Enough parameters that the files' headers do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.net[0] = torch.nn.Linear(4, 20_000)
        self.net[1] = torch.nn.Identity()
        self.net[4] = torch.nn.Linear(20_000, 1)

    def groups(self, lr: float = 3e-2) -> list[dict[str, Any]]:
        return [{"name": "all", "params": list(self.parameters()), "lr": lr, "weight_decay": 0.0}]


@pytest.mark.parametrize("stage", STAGES)
def test_the_plan_counts_what_a_checkpoint_takes(stage: int, tmp_path: Path) -> None:
    objective = _Wide()
    trained = sum(parameter.numel() for parameter in objective.parameters())
    engine = Engine(objective, objective.groups(), train=tiny_config(zero_stage=stage), total_steps=9, seed=0)
    steps(engine, range(1))
    engine.save(tmp_path)
    written = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert STATE_BYTES * trained <= written < 1.01 * STATE_BYTES * trained
