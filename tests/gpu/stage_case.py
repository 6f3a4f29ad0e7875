"""A stage that notes where its ranks run and whose process may die at a step; Ray's workers import it."""

import json
import os
import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.gpu.device import DEVICE, identity
from uniemo_ray.training.parts import StageBuilder, StageParts
from uniemo_ray.training.stage_settings import StageSettings

CRASHED = "crashed"


class Noted(nn.Module):
    """Wraps an objective; its first step writes a note, and the step `dies_at` ends the process, once."""

    def __init__(self, objective: nn.Module, folder: Path, dies_at: int | None) -> None:
        super().__init__()
        self.objective = objective
        self._folder, self._dies_at, self._steps = folder, dies_at, 0

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The objective's values."""
        if self.training:
            self._steps += 1
            if self._steps == 1:
                self._note(batch)
            marker = self._folder / CRASHED
            if self._steps == self._dies_at and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        values: dict[str, Tensor] = self.objective(batch)
        return values

    def _note(self, batch: Mapping[str, Tensor]) -> None:
        rank = torch.distributed.get_rank()
        note = {
            "rank": rank,
            "gpu": identity(),
            "backend": torch.distributed.get_backend(),
            "devices": sorted({str(t.device.type) for t in (*self.parameters(), *batch.values())}),
            "is_current": DEVICE == "cpu" or batch["pixels"].device.index == torch.cuda.current_device(),
        }
        (self._folder / f"rank-{rank}-{os.getpid()}.json").write_text(json.dumps(note))


def build(settings: StageSettings, *, folder: str, dies_at: int | None) -> StageParts:
    """`build_stage` with notes."""
    from uniemo_ray.training.stage import build_stage

    parts = build_stage(settings)
    return parts._replace(objective=Noted(parts.objective, Path(folder), dies_at))


def builder(folder: Path, *, dies_at: int | None = None) -> StageBuilder:
    """A stage that writes into a folder of this test."""
    folder.mkdir()
    return partial(build, folder=str(folder), dies_at=dies_at)


def notes(folder: Path) -> list[dict[str, Any]]:
    """What the ranks wrote, by rank."""
    found = [json.loads(path.read_text()) for path in folder.glob("rank-*.json")]
    return sorted(found, key=lambda note: int(note["rank"]))
