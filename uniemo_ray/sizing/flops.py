"""Floating point operations of a run's work, counted by torch on the real modules without data.

Counted are matrix products, convolutions and attention, which are nearly all of it. A multiplication and an
addition are two operations.
"""

# S image side in pixels, h latent side

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from uniemo_ray.config import Config
from uniemo_ray.sizing.architectures import Architecture
from uniemo_ray.sizing.blueprint import Blueprint, choose_trained

META = torch.device("meta")


@dataclass(frozen=True)
class ImageFlops:
    """Operations for one image."""

    stage1: float
    """A training step of stage 1: forward and backward."""
    stage2: float
    """A training step of stage 2 with latents that are there already."""
    generated: float
    """All calls of the denoiser, with guidance two for each step, and the VAE's decoder."""
    latent: float
    """The VAE's encoder."""
    feature: float
    """Frozen CLIP: a feature, or the scores of an image."""


def image_flops(blueprint: Blueprint, architecture: Architecture, config: Config) -> ImageFlops:
    """Count everything once, on tensors of torch's meta device.

    Gradient checkpointing computes the forward pass once more. The text encoders are left out: less than one
    in a hundred.
    """
    choose_trained(blueprint.net, config, 1)
    first = _step(lambda: _understand(blueprint), is_repeated=config.stage1.gradient_checkpointing)
    choose_trained(blueprint.net, config, 2)
    is_repeated = config.stage2.gradient_checkpointing
    second = _step(lambda: _understand(blueprint), is_repeated=is_repeated)
    second += _step(lambda: _denoise(blueprint, architecture, config), is_repeated=is_repeated)
    with torch.no_grad():
        feature = _count(lambda: _pixels_to_feature(blueprint))
        call = _count(lambda: _denoise(blueprint, architecture, config))
        decoded = _count(lambda: blueprint.vae.decode(_latents(architecture, config)))
        size = config.diffusion.size_px
        latent = _count(lambda: blueprint.vae.encode(torch.empty(1, 3, size, size, device=META)))
    calls = config.diffusion.steps * (2 if config.diffusion.guidance > 1 else 1)
    return ImageFlops(first, second, calls * call + decoded, latent, feature)


def _step(run: Callable[[], torch.Tensor], *, is_repeated: bool) -> float:
    """Forward and backward, and the forward pass once more if it is repeated."""
    with torch.no_grad():
        again = _count(run) if is_repeated else 0.0
    return again + _count(lambda: _backward(run()))


def _backward(result: torch.Tensor) -> None:
    if result.requires_grad:
        result.sum().backward()


def _count(run: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def _pixels(blueprint: Blueprint) -> torch.Tensor:
    side = int(blueprint.net.encoder.visual.image_size[0])
    return torch.empty(1, 3, side, side, device=META)


def _understand(blueprint: Blueprint) -> torch.Tensor:
    return blueprint.net.understand(_pixels(blueprint)).logits


def _pixels_to_feature(blueprint: Blueprint) -> torch.Tensor:
    feature: torch.Tensor = blueprint.net.encoder.visual(_pixels(blueprint))
    return feature


def _latents(architecture: Architecture, config: Config) -> torch.Tensor:
    side = config.diffusion.size_px // architecture.pixels_per_latent
    return torch.empty(1, int(architecture.denoiser["in_channels"]), side, side, device=META)


def _denoise(blueprint: Blueprint, architecture: Architecture, config: Config) -> torch.Tensor:
    """One call, with a text that takes a gradient: the condition is in it."""
    lengths = {int(values["max_position_embeddings"]) for values in architecture.text_encoders}
    width = sum(int(values["hidden_size"]) for values in architecture.text_encoders)
    text = torch.empty(1, max(lengths), width, device=META, requires_grad=True)
    extra = {}
    if architecture.denoiser.get("addition_embed_type") == "text_time":
        pooled = int(architecture.text_encoders[-1]["projection_dim"])
        extra["added_cond_kwargs"] = {
            "text_embeds": torch.empty(1, pooled, device=META),
            "time_ids": torch.empty(1, 6, device=META),
        }
    time = torch.zeros(1, dtype=torch.long, device=META)
    noise: torch.Tensor = blueprint.denoiser(
        _latents(architecture, config), time, encoder_hidden_states=text, **extra
    ).sample
    return noise
