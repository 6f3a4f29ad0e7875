"""A tiny real objective, for tests of engine and loop."""

from typing import Any

import torch
from torch import Tensor, nn

from uniemo_ray.config import TrainConfig


class TinyObjective(nn.Module):
    """Two linear layers, dropout and a frozen layer norm; learns `y = sum(x)`."""

    def __init__(self, seed: int = 0, dropout: float = 0.1) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.net = nn.Sequential(
            nn.Linear(4, 16), nn.LayerNorm(16), nn.Dropout(dropout), nn.ReLU(), nn.Linear(16, 1)
        )
        self.net[1].requires_grad_(False)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        error = self.net(batch["x"])[:, 0].float() - batch["x"].sum(dim=1)
        return {"loss": error.pow(2).mean(), "error": error.abs().mean()}

    def groups(self, lr: float = 3e-2) -> list[dict[str, Any]]:
        layers = {"first": self.net[0], "frozen": self.net[1], "last": self.net[4]}
        return [
            {"name": name, "params": list(layer.parameters()), "lr": lr, "weight_decay": 0.0}
            for name, layer in layers.items()
        ]


def tiny_batch(step: int, size: int = 8) -> dict[str, Tensor]:
    return {"x": torch.randn(size, 4, generator=torch.Generator().manual_seed(step))}


def tiny_config(**values: Any) -> TrainConfig:
    return TrainConfig.model_validate({"epochs": 2, "batch_size": 8, "warmup_steps": 3, **values})
