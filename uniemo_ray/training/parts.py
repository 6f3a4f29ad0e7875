"""What a stage is made of, without what it is built from."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from uniemo_ray.training.batches import Collate
from uniemo_ray.training.stage_settings import StageSettings


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


StageBuilder = Callable[[StageSettings], StageParts]
