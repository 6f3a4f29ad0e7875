"""Trains the recogniser on renders."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tools.tiny.renders import NONE, Renders
from tools.tiny.schedule import StepLog, batches, scheduled
from uniemo_ray.data.images import to_unit_range
from uniemo_ray.metrics.recogniser import Recogniser


def train_recogniser(
    renders: Renders, *, scenes: int, objects: int, steps: int, batch_size: int = 64, seed: int = 0
) -> Recogniser:
    """Cross-entropy on both heads; a render without a scene or object skips that head."""
    torch.manual_seed(seed)
    model = Recogniser(scenes=scenes, objects=objects).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    progress = StepLog("recogniser", steps)
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
