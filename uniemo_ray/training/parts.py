"""What a stage is made of, without what it is built from."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from uniemo_ray.training.batches import MakesBatches
from uniemo_ray.training.optimizers import MakeOptimizer, adamw
from uniemo_ray.training.stage_settings import StageSettings


class StageParts(NamedTuple):
    """What a stage trains and feeds.

    Attributes:
        objective: Batch to named scalars, with `loss`.
        groups: Parameter groups of the optimizer, with `name` and peak `lr`.
        collate: Rows to batches.
        exports: Name to module, part of the objective. After the last epoch `net` is saved whole as
            `net.safetensors`; of others the trained parameters.
        make_optimizer: AdamW, unless the stage is to train with something else.
    """

    objective: nn.Module
    groups: list[dict[str, Any]]
    collate: MakesBatches
    exports: dict[str, nn.Module]
    make_optimizer: MakeOptimizer = adamw


StageBuilder = Callable[[StageSettings], StageParts]
