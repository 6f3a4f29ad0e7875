"""The published training step, written from its definition: noise, one step of the denoiser, its error."""

import torch
from torch import Tensor

from uniemo_ray.models.diffusion import DiffusionParts


def draw(latents: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Time steps and noise that torch's own stream gives after this seed."""
    torch.manual_seed(seed)
    return torch.randint(1000, (len(latents),)), torch.randn(latents.shape)


def denoising_errors(parts: DiffusionParts, latents: Tensor, hidden: Tensor, *, seed: int) -> Tensor:
    """Mean squared error (B,) of a model that predicts velocities, for text states (B, L, T)."""
    t, noise = draw(latents, seed)
    kept = parts.schedule.alphas_cumprod[t][:, None, None, None]
    noisy = kept.sqrt() * latents + (1 - kept).sqrt() * noise
    velocity = kept.sqrt() * noise - (1 - kept).sqrt() * latents
    predicted = parts.denoiser(noisy, t, encoder_hidden_states=hidden).sample
    return (predicted - velocity).square().flatten(1).mean(dim=1)
