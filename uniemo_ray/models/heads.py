"""Small heads: the emotion classifier and a contrastive temperature."""

# B batch, D width, C emotions

import math

import torch
from torch import Tensor, nn

HIDDEN = 768
LOWEST_TEMPERATURE = 0.01


def make_classifier(width: int, classes: int) -> nn.Sequential:
    """Linear(D, 768), ReLU, Dropout(0.5), Linear(768, C) on the class feature (section 1)."""
    return nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Dropout(0.5), nn.Linear(HIDDEN, classes))


class AttributeHeads(nn.Module):
    """Linear heads on the pooled queries, which supervise stage 2 without contrast and end with it."""

    def __init__(self, width: int, scenes: int, objects: int) -> None:
        super().__init__()
        self.scene = nn.Linear(width, scenes)
        self.object = nn.Linear(width, objects)


class Temperature(nn.Module):
    """A learnable temperature, kept as its logarithm and never below 0.01 (as CLIP does)."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.log_value = nn.Parameter(torch.tensor([math.log(start)]))

    def forward(self) -> Tensor:
        """The temperature, shape (1,)."""
        return self.log_value.exp().clamp(min=LOWEST_TEMPERATURE)
