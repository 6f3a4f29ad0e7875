"""Tiny parts of a stage that Ray workers import."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.training.loading.shards import commit_rows
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.training.batches import Batch
from uniemo_ray.training.loading.pieces import ShardRows, shard_rows
from uniemo_ray.training.parts import StageParts
from uniemo_ray.training.stage_settings import StageSettings


class Squares(nn.Module):
    """Learns `y = sum(x)` through a layer that is frozen and fresh."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 16), nn.Linear(16, 1))
        self.net[2].requires_grad_(False)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        error = self.net(batch["x"])[:, 0].float() - batch["x"].sum(dim=1)
        return {"loss": error.pow(2).mean()}


class LoggingCollate:
    """Batches of vectors; notes each id that training took, and fails on demand, once."""

    def __init__(self, log: str, crash: Mapping[str, Any] | None) -> None:
        self.log, self.crash = Path(log), crash

    def __call__(self, raw: Mapping[str, Any], *, epoch: int, is_training: bool) -> Batch:
        return Batch(
            {"x": torch.tensor(np.stack(raw["x"]).astype(np.float32))},
            [str(name) for name in raw["image_id"]],
        )


class Recorder(nn.Module):
    """Wraps an objective: writes the ids of every training step, then crashes where it was told to."""

    def __init__(self, objective: nn.Module, collate: LoggingCollate) -> None:
        super().__init__()
        self.objective = objective
        self._collate = collate
        self._steps = 0

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = self.objective(batch)
        if self.training:
            self._record(batch["x"])
        accuracy = torch.tensor(1 / (1 + self._steps))  # falls, so the first epoch is the best
        return {**losses, "accuracy": accuracy}

    def _record(self, x: Tensor) -> None:
        self._steps += 1
        rank = torch.distributed.get_rank()
        log = self._collate.log
        with (log / f"ids-{os.getpid()}-rank{rank}.txt").open("a") as file:
            file.writelines(f"{self._steps} {int(value)}\n" for value in (x[:, 3] * 1000).round())
        crash, marker = self._collate.crash, log / "crashed"
        if crash and rank == 1 and self._steps == crash["step"] and not marker.exists():
            marker.touch()
            if crash["kind"] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise {"error": RuntimeError, "value": ValueError}[crash["kind"]]("told to fail")


def build(settings: StageSettings, *, log: str, crash: Mapping[str, Any] | None = None) -> StageParts:
    objective = Squares()
    collate = LoggingCollate(log, crash)
    groups = [{"name": "all", "params": list(objective.parameters()), "lr": 0.03, "weight_decay": 0.0}]
    parts: Any = collate
    return StageParts(Recorder(objective, collate), groups, parts, {"net": objective.net})


def shards(folder: str, count: int, *, prefix: str = "train", per_shard: int = 27) -> ShardRows:
    """Rows in committed shards of a store."""
    store = open_store(folder)
    commit_rows(store, rows(count), per_shard=per_shard, prefix=prefix)
    return shard_rows([(store, prefix)], columns=["image_id", "x"])


def rows(count: int) -> list[dict[str, Any]]:
    """Row i carries i / 1000 as its last feature, so that a step can say which rows it saw."""
    rng = np.random.default_rng(0)
    return [{"image_id": f"image-{i}", "x": [*rng.normal(size=3).tolist(), i / 1000]} for i in range(count)]
