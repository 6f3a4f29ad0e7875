"""The recogniser: a small CNN that names the scene and the object of a render.

It judges base models and generated pictures, knows nothing of emotion, and is the trunk of
`lpips_tiny`.
"""

# B batch, S scenes, O objects

import logging
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uniemo_ray.data.images import to_unit_range
from uniemo_ray.tiny.renders import NONE, Renders
from uniemo_ray.tiny.schedule import Progress, batches, scheduled

logger = logging.getLogger(__name__)
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


def train_recogniser(
    renders: Renders, *, scenes: int, objects: int, steps: int, batch_size: int = 64, seed: int = 0
) -> Recogniser:
    """Cross-entropy on both heads; a render without a scene or object skips that head."""
    torch.manual_seed(seed)
    model = Recogniser(scenes=scenes, objects=objects).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    progress = Progress("recogniser", steps)
    rng = np.random.default_rng(seed)
    order = batches(len(renders), size=batch_size, seed=seed)
    for step, index in scheduled(optimizer, order, steps=steps, lr=3e-3):
        x = augment(to_unit_range(renders.pixels[index]), rng).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(x)
        scene = F.cross_entropy(
            logits.scene.float(), torch.from_numpy(renders.scenes[index]), ignore_index=NONE
        )
        object_ = F.cross_entropy(
            logits.object.float(), torch.from_numpy(renders.objects[index]), ignore_index=NONE
        )
        optimizer.zero_grad()
        (scene + object_).backward()
        optimizer.step()
        progress.log(step, scene=scene.item(), object=object_.item())
    return model.to(memory_format=torch.contiguous_format).eval()


def augment(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Blur, noise and brightness at random, so that soft or rough generated pictures are read as well."""
    if rng.random() < 0.4:
        factor = float(rng.uniform(0.5, 0.9))
        small = F.interpolate(pixels, scale_factor=factor, mode="bilinear", antialias=True)
        pixels = F.interpolate(small, size=pixels.shape[-2:], mode="bilinear")
    gain = torch.from_numpy(rng.uniform(0.8, 1.2, size=(len(pixels), 1, 1, 1)).astype(np.float32))
    noise = torch.from_numpy(rng.standard_normal(pixels.shape, dtype=np.float32)) * float(
        rng.uniform(0, 0.08)
    )
    return (pixels * gain + noise).clamp(-1, 1)


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
