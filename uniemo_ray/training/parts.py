"""What a stage is made of, without what it is built from: light enough for drivers and controllers."""

from typing import Any, Literal, NamedTuple

from torch import nn

from uniemo_ray.config import Config, TrainConfig
from uniemo_ray.training.batches import Collate

StageName = Literal["understanding", "joint"]


class StageParts(NamedTuple):
    """What a stage trains and feeds.

    Attributes:
        objective: Batch to named scalars, with `loss`.
        groups: AdamW parameter groups with `name` and peak `lr`.
        collate: Rows to batches.
        exports: Name to module, part of the objective. After the last epoch `net` is saved whole as
            `net.safetensors`; of others the trained parameters.
    """

    objective: nn.Module
    groups: list[dict[str, Any]]
    collate: Collate
    exports: dict[str, nn.Module]


def stage_config(stage: StageName, config: Config) -> TrainConfig:
    """The section of a stage."""
    return config.stage1 if stage == "understanding" else config.stage2
