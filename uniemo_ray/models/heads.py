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


class Temperature(nn.Module):
    """A learnable temperature, kept as its logarithm and never below 0.01 (as CLIP does)."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.log_value = nn.Parameter(torch.tensor([math.log(start)]))

    def forward(self) -> Tensor:
        """The temperature, shape (1,)."""
        return self.log_value.exp().clamp(min=LOWEST_TEMPERATURE)
