"""What a training step tells: sums that stay on the device, and means over all ranks."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor


class NonFiniteLossError(FloatingPointError):
    """A loss or gradient became infinite or NaN; the weights of the last checkpoint are sound."""


class TrainedStep(NamedTuple):
    """One training step.

    Attributes:
        metrics: What the objective returned, as means over the rows of the global batch, and
            `gradient_norm` and `lr_factor`.
        is_due: Whether any rank asked for a checkpoint after this step.
    """

    metrics: dict[str, float]
    is_due: bool


class WeightedSums:
    """Weighted sums of named scalars, kept where they were computed."""

    def __init__(self) -> None:
        self._values: dict[str, Tensor] = {}

    def add(self, losses: Mapping[str, Tensor], *, weight: float) -> None:
        """Add a chunk's values; waits for nothing."""
        for name, value in losses.items():
            part = value.detach().double() * weight
            self._values[name] = self._values[name] + part if name in self._values else part

    def over_ranks(self, *, flag: bool) -> tuple[dict[str, float], bool]:
        """Means over ranks, and whether any rank raises its flag; collective, and the CPU waits here.

        A NaN of one rank becomes a NaN of all.
        """
        values = list(self._values.values())
        values.append(torch.tensor(float(flag), dtype=torch.float64, device=values[0].device))
        packed, ranks = torch.stack(values), dist.get_world_size()
        if ranks > 1:
            dist.all_reduce(packed)
        *sums, flags = packed.tolist()
        return {name: value / ranks for name, value in zip(self._values, sums, strict=True)}, flags > 0


def check_losses(metrics: Mapping[str, float], *, step: int) -> None:
    """Raise NonFiniteLossError if one of a step's losses is not finite."""
    if not all(math.isfinite(value) for value in metrics.values()):
        shown = ", ".join(f"{name} {value:g}" for name, value in metrics.items())
        raise NonFiniteLossError(
            f"loss is not finite at step {step}: {shown}. Lower the learning rates or check the data"
        )


def is_finite_norm(norm: float) -> bool:
    """Whether a gradient norm as DeepSpeed tells it is finite: ZeRO reports an infinite or NaN norm as -1."""
    return math.isfinite(norm) and norm >= 0
