"""The image autoencoder of a latent diffusion model: pixels to latents and back. It never trains."""

# B batch, H and W side in pixels, c, h and w a latent's channels and sides

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn

from uniemo_ray.config import DiffusionConfig
from uniemo_ray.models.pipeline_folder import PipelineFolder, configured_pipeline, load_part


def load_vae(folder: PipelineFolder) -> AutoencoderKL:
    """The VAE of a pipeline folder, in fp32, frozen and in eval mode.

    Raises:
        ValueError: one line, when its weights are damaged or of another shape than its config says.
    """
    vae: AutoencoderKL = load_part(folder, "vae", AutoencoderKL, torch_dtype=torch.float32)
    vae.requires_grad_(False).eval()
    return vae


def load_configured_vae(config: DiffusionConfig) -> AutoencoderKL:
    """The VAE alone, for work that needs nothing else of the model, with the settings of `tune_vae`.

    Raises:
        ValueError: as `load_vae`, or when the folder lacks a part.
    """
    return tune_vae(load_vae(configured_pipeline(config)), config)


def tune_vae(vae: AutoencoderKL, config: DiffusionConfig) -> AutoencoderKL:
    """Apply `channels_last` and `vae_slicing`, in place."""
    if config.channels_last:
        nn.Module.to(vae, memory_format=torch.channels_last)
    if config.vae_slicing:
        vae.enable_slicing()
    return vae


@torch.no_grad()
def encode_images(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Scaled latents (B, c, h, w) of pixels (B, 3, H, W) in [-1, 1]: the posterior's mean.

    In fp32 also under autocast: the VAE of SDXL overflows in fp16.
    """
    with torch.autocast(pixels.device.type, enabled=False):
        latents: Tensor = vae.encode(pixels.float()).latent_dist.mode()
    return (latents - _shift(vae)) * float(vae.config["scaling_factor"])


@torch.no_grad()
def decode_latents(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Pixels (B, 3, H, W), about [-1, 1], of scaled latents (B, c, h, w), in fp32 as `encode_images`."""
    with torch.autocast(latents.device.type, enabled=False):
        raw = latents.float() / float(vae.config["scaling_factor"]) + _shift(vae)
        pixels: Tensor = vae.decode(raw).sample
    return pixels


def _shift(vae: AutoencoderKL) -> float:
    return float(vae.config.get("shift_factor") or 0)
