"""The optimizers that an engine trains with."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Groups = list[dict[str, Any]]
"""Parameter groups with `params`, `lr` and `weight_decay`."""
MakeOptimizer = Callable[[Groups], torch.optim.Optimizer]


def adamw(groups: Groups) -> torch.optim.Optimizer:
    """AdamW with the decays of moments that stages use."""
    return torch.optim.AdamW(groups, betas=(0.9, 0.999))


class MomentumSgd(torch.optim.Optimizer):
    """SGD with momentum and weight decay in the gradient: the update of `torch.optim.SGD`.

    It keeps the momentum under the name of AdamW's first moment, and counts its steps as AdamW does, so that
    checkpoints hold both for every ZeRO stage.
    """

    def __init__(self, groups: Groups, *, momentum: float = 0.9) -> None:
        super().__init__(groups, {"momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"], state["exp_avg"] = torch.tensor(0.0), torch.zeros_like(parameter)
        gradient = parameter.grad.add(parameter, alpha=group["weight_decay"])  # type: ignore[union-attr]
        state["exp_avg"].mul_(group["momentum"]).add_(gradient)
        parameter.add_(state["exp_avg"], alpha=-group["lr"])
        state["step"] += 1
