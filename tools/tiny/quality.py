"""Measure the tiny base models on unseen renders and prompts, as their card reports it."""

from typing import NamedTuple

import numpy as np
import torch
from diffusers import StableDiffusionPipeline, UniPCMultistepScheduler
from torch import Tensor

from tools.tiny.words import spoken
from uniemo_ray.data.emosketch.rule import load_rule
from uniemo_ray.metrics.recogniser import Recogniser, recognise


class Faithfulness(NamedTuple):
    """Share of generated pictures on which the recogniser sees what the prompt said."""

    scene: float
    object: float
    images: int


def prompt_faithfulness(
    pipeline: StableDiffusionPipeline,
    recogniser: Recogniser,
    *,
    images: int = 384,
    steps: int = 20,
    guidance: float = 4.0,
    seed: int = 0,
) -> Faithfulness:
    """Generate "a {object} in a {scene}" for pairs spread over all combinations and judge them."""
    rule = load_rule()
    pairs = [(s, o) for s in range(len(rule.scenes)) for o in range(len(rule.objects))]
    chosen = np.random.default_rng(seed).permutation(len(pairs))[:images]
    wanted = np.array([pairs[i] for i in chosen])
    prompts = [f"a {spoken(rule.objects[o])} in a {spoken(rule.scenes[s])}" for s, o in wanted]
    pixels = sample(pipeline, prompts, steps=steps, guidance=guidance, seed=seed)
    seen = recognise(recogniser, pixels)
    return Faithfulness(
        scene=float((seen.scene.numpy() == wanted[:, 0]).mean()),
        object=float((seen.object.numpy() == wanted[:, 1]).mean()),
        images=len(wanted),
    )


def sample(
    pipeline: StableDiffusionPipeline, prompts: list[str], *, steps: int, guidance: float, seed: int
) -> Tensor:
    """Pictures (M, 3, H, W) in [-1, 1] for the prompts, 32 at a time."""
    pipeline.scheduler = UniPCMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for i in range(0, len(prompts), 32):
        out = pipeline(
            prompts[i : i + 32],
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=generator,
            output_type="pt",
        )
        parts.append(out.images * 2 - 1)
    return torch.cat(parts)
