"""The recogniser: a small CNN that names the scene and the object of a render.

It judges base models and generated pictures, knows nothing of emotion, and is the trunk of
`lpips_tiny`.
"""

# B batch, S scenes, O objects

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from uniemo_ray.data.emosketch.rule import load_rule

WIDTHS = (32, 48, 96, 128, 128)


class Recognised(NamedTuple):
    """Logits of one batch."""

    scene: Tensor
    """(B, S)."""
    object: Tensor
    """(B, O)."""


class Recogniser(nn.Module):
    """Five convolution stages and two linear heads; pictures in [-1, 1], any size from 32 px."""

    def __init__(self, *, scenes: int, objects: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inner, outer, 3, stride=1 if i == 0 else 2, padding=1, bias=False),
                nn.BatchNorm2d(outer),
                nn.ReLU(),
            )
            for i, (inner, outer) in enumerate(zip((3, *WIDTHS[:-1]), WIDTHS, strict=True))
        )
        self.scene_head = nn.Linear(2 * WIDTHS[-1], scenes)
        self.object_head = nn.Linear(2 * WIDTHS[-1], objects)

    def features(self, pixels: Tensor) -> list[Tensor]:
        """Activations of every stage, finest first: (B, width, H / 2**i, W / 2**i)."""
        maps = []
        for stage in self.stages:
            pixels = stage(pixels)
            maps.append(pixels)
        return maps

    def forward(self, pixels: Tensor) -> Recognised:
        """Logits for (B, 3, H, W) pictures."""
        last = self.features(pixels)[-1]
        pooled = torch.cat([last.mean(dim=(2, 3)), last.amax(dim=(2, 3))], dim=1)
        return Recognised(self.scene_head(pooled), self.object_head(pooled))


class Recognition(NamedTuple):
    """What the recogniser sees on each picture: (M,) indices and the probabilities behind them."""

    scene: Tensor
    object: Tensor
    scene_probability: Tensor
    object_probability: Tensor


@torch.no_grad()
def recognise(model: Recogniser, pixels: Tensor, *, batch_size: int = 64) -> Recognition:
    """Name scene and object of (M, 3, H, W) pictures in [-1, 1]."""
    parts = [model(pixels[i : i + batch_size]) for i in range(0, len(pixels), batch_size)]
    scene = torch.cat([p.scene for p in parts]).softmax(dim=1).max(dim=1)
    object_ = torch.cat([p.object for p in parts]).softmax(dim=1).max(dim=1)
    return Recognition(scene.indices, object_.indices, scene.values, object_.values)


def load_recogniser(path: Path) -> Recogniser:
    """The judge from a packed file, fp32, eval."""
    rule = load_rule()
    model = Recogniser(scenes=len(rule.scenes), objects=len(rule.objects))
    model.load_state_dict(load_file(path))
    return model.eval()
