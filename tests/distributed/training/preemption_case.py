"""A stage that tests take machines away from: its driver, and parts that note every step."""

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import ray
import torch
from torch import Tensor, nn

from tests.distributed.training.train_case import LoggingCollate, Squares, shards
from uniemo_ray.config import Config
from uniemo_ray.distributed.training.train_stage import train_stage
from uniemo_ray.training.parts import StageParts
from uniemo_ray.training.stage_settings import StageSettings

PACE_S = 0.25


class Noted(nn.Module):
    """Takes its time for every training step, and notes when it began and with which rows."""

    def __init__(self, objective: nn.Module, log: Path) -> None:
        super().__init__()
        self.objective, self._log = objective, log
        self._started = time.time()

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.training:
            seen = [int(value) for value in (batch["x"][:, 3] * 1000).round()]
            name = f"{self._started:.3f}-{os.getpid()}-rank{torch.distributed.get_rank()}.jsonl"
            with (self._log / name).open("a") as file:
                file.write(json.dumps({"at": time.time(), "rows": seen}) + "\n")
            time.sleep(PACE_S)
        losses: dict[str, Tensor] = self.objective(batch)
        return losses


def build(settings: StageSettings, *, log: str) -> StageParts:
    objective = Squares()
    groups = [{"name": "all", "params": list(objective.parameters()), "lr": 0.03, "weight_decay": 0.0}]
    collate = LoggingCollate(log, None)
    return StageParts(Noted(objective, Path(log)), groups, collate, {"net": objective.net})  # type: ignore[arg-type]


def main() -> None:
    """Train; the last line of the output tells how it went."""
    storage, log, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    ray.init()
    result = train_stage(
        settings=StageSettings(stage="understanding", config=Config.model_validate(settings)),
        data=shards(f"{storage}/shards", settings["data"]["sketch_train"]),
        storage=storage,
        name="tiny",
        build=partial(build, log=log),
    )
    steps = [record["step"] for record in result.history if record["kind"] == "step"]
    print(json.dumps({"attempts": result.attempts, "images": result.images, "steps": steps}), flush=True)


if __name__ == "__main__":
    main()
