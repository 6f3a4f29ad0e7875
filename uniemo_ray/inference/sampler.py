"""Latent diffusion sampling with classifier-free guidance, one random generator per image.

The loop is StableDiffusionPipeline's own, opened up so that several guided conditions and
per-image generators fit in; for one plain prompt both give the same pixels.
"""

# B micro-batch, K guided conditions per image, L prompt tokens, T text width,
# H, W sides of the picture, h, w of its latents

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import DDIMScheduler, UniPCMultistepScheduler
from numpy.typing import NDArray
from torch import Tensor, nn

from uniemo_ray.inference.requests import SamplingSettings
from uniemo_ray.models.conditioning import TextStates, denoiser_inputs

SCHEDULERS = {"unipc": UniPCMultistepScheduler, "ddim": DDIMScheduler}


class Guided(NamedTuple):
    """Text conditions of a micro-batch."""

    states: TextStates
    """(K, B, ...) text states of the K conditions of every image."""
    weights: Tensor
    """(K, B) their shares; ones for a single condition."""
    empty: TextStates
    """(B, ...) text states of the empty prompt."""


def check_settings(settings: SamplingSettings, *, multiple: int) -> None:
    """Refuse settings that cannot run.

    Args:
        settings: of a micro-batch.
        multiple: pixels per latent, of which both sides must be a multiple.

    Raises:
        ValueError: naming the setting, its value and what is expected.
    """
    if settings.scheduler not in SCHEDULERS:
        raise ValueError(f"unknown scheduler {settings.scheduler!r}: expected one of {', '.join(SCHEDULERS)}")
    for name in ("width", "height"):
        side = getattr(settings, name)
        if side < multiple or side % multiple:
            near = max(multiple, round(side / multiple) * multiple)
            raise ValueError(f"{name} must be a positive multiple of {multiple} px, got {side}: try {near}")
    for name in ("steps", "micro_batch"):
        if getattr(settings, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(settings, name)}")
    if not (np.isfinite(settings.guidance) and settings.guidance >= 0):
        raise ValueError(f"guidance must be a finite number of at least 0, got {settings.guidance}")


def make_scheduler(config: Mapping[str, Any], name: str, *, is_xl: bool = False) -> Any:
    """A diffusers scheduler of kind `name` on the noise schedule of the folder's `config`.

    Stable Diffusion's pipeline (not that of SDXL) overrides two settings of old scheduler files; so do
    we, to sample what it would.
    """
    fixed = {} if is_xl else {"steps_offset": 1, "clip_sample": False}
    return SCHEDULERS[name].from_config({**config, **fixed})


def draw_latents(
    generators: Sequence[torch.Generator], shape: tuple[int, int, int], *, device: torch.device
) -> Tensor:
    """(B, channels, h, w) unit noise, image i from generator i alone; drawn on the CPU everywhere."""
    return torch.cat([torch.randn((1, *shape), generator=g) for g in generators]).to(device)


@torch.no_grad()
def sample(
    denoiser: nn.Module,
    scheduler: Any,
    noise: Tensor,
    guided: Guided,
    *,
    settings: SamplingSettings,
    generators: list[torch.Generator],
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Denoise (B, channels, h, w) unit noise into scaled latents.

    Guidance (section 4): `eps = eps_empty + sum_k w_k g (eps_k - eps_empty)`.

    `on_step` sees the number of every finished step, from 1, and the latents after it; what it raises
    ends the sampling.
    """
    is_guided = settings.guidance > 1
    copies = len(guided.weights) + int(is_guided)
    inputs = denoiser_inputs(
        _lay_out(guided, is_guided=is_guided), height=settings.height, width=settings.width
    )
    # a scheduler that draws noise must draw it per image
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    step_options = {"generator": generators} if takes_generator else {}
    scheduler.set_timesteps(settings.steps, device=noise.device)
    latents: Tensor = noise * scheduler.init_noise_sigma
    for number, t in enumerate(scheduler.timesteps, start=1):
        x = scheduler.scale_model_input(torch.cat([latents] * copies), t)
        parts = denoiser(x, t, **inputs, return_dict=False)[0].chunk(copies)
        predicted = _combine(parts, guided.weights, settings.guidance if is_guided else None)
        latents = scheduler.step(predicted, t, latents, return_dict=False, **step_options)[0]
        if on_step is not None:
            on_step(number, latents)
    return latents


def _lay_out(guided: Guided, *, is_guided: bool) -> TextStates:
    """Texts of one call of the denoiser: of the empty prompt (if guided), then of the K conditions."""

    def join(states: Tensor, empty: Tensor) -> Tensor:
        flat = states.flatten(0, 1)  # (K B, ...)
        return torch.cat([empty, flat]) if is_guided else flat

    states, empty = guided.states, guided.empty
    if states.pooled is None or empty.pooled is None:
        return TextStates(join(states.hidden, empty.hidden))
    return TextStates(join(states.hidden, empty.hidden), join(states.pooled, empty.pooled))


def _combine(parts: Sequence[Tensor], weights: Tensor, guidance: float | None) -> Tensor:
    """One prediction (B, ...) from those of the empty prompt (if guided) and the K conditions."""
    shares = weights[:, :, None, None, None]
    if guidance is None:
        return torch.stack([w * p for w, p in zip(shares, parts, strict=True)]).sum(dim=0)
    empty = parts[0]
    total = empty
    for share, part in zip(shares, parts[1:], strict=True):
        total = total + guidance * share * (part - empty)
    return total


def to_pictures(images: Tensor) -> NDArray[np.uint8]:
    """What a VAE decoded, (B, 3, H, W) of about [-1, 1], as pictures (B, H, W, 3)."""
    shares = (images.float() * 0.5 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    return np.asarray((shares * 255).round().to(torch.uint8).contiguous().cpu().numpy())
