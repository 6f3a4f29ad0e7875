"""fp16 arithmetic in training: autocast, and a loss scale that keeps gradients in fp16's narrow range."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

START, LARGEST = 2.0**16, 2.0**24
STEPS_BEFORE_GROWTH = 2000
"""Steps without an overflow after which twice the scale is tried (as PyTorch's own scaler)."""


class LossScale:
    """A power of two that multiplies the loss: halved when a gradient overflows, doubled after long quiet.

    All ranks see the same global gradient norm, so they all hold the same scale.
    """

    def __init__(self) -> None:
        self.value = START
        self._quiet_steps = 0

    def halve(self, step: int) -> bool:
        """After an overflow; False when the scale is 1 already, so that the gradient itself is at fault."""
        if self.value <= 1:
            return False
        self.value /= 2
        self._quiet_steps = 0
        logger.info("step %d: gradients overflow in fp16, again with loss scale %g", step, self.value)
        return True

    def count_step(self) -> None:
        """After a step without an overflow."""
        self._quiet_steps += 1
        if self._quiet_steps >= STEPS_BEFORE_GROWTH and self.value < LARGEST:
            self.value *= 2
            self._quiet_steps = 0

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {"value": self.value, "quiet_steps": self._quiet_steps}

    def restore(self, state: Mapping[str, float]) -> None:
        """The inverse of `state`."""
        self.value, self._quiet_steps = float(state["value"]), int(state["quiet_steps"])


class Fp16Autocast(nn.Module):
    """An objective whose matrix products run in fp16; parameters and losses stay fp32.

    DeepSpeed's own fp16 autocast clips gradients before it takes the loss scale out of them (seen in 0.19),
    so it is not used.
    """

    def __init__(self, objective: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.objective, self._device_type = objective, device.type

    def forward(self, batch: Mapping[str, Tensor], *values: Any, **options: Any) -> Any:
        """What the objective returns."""
        with torch.autocast(self._device_type, dtype=torch.float16):
            return self.objective(batch, *values, **options)
