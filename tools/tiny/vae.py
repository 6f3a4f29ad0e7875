"""Train the tiny AutoencoderKL: 64 px pictures to (8, 16, 16) latents and back."""

# B batch

import logging
import math

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tools.tiny.schedule import StepLog, WeightAverage, batches, scheduled
from uniemo_ray.data.images import to_unit_range

logger = logging.getLogger(__name__)
LATENT_STD = 0.1


def make_vae() -> AutoencoderKL:
    """An untrained tiny VAE: 4 x downsampling, 8 latent channels."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )


def train_vae(
    pixels: NDArray[np.uint8], *, steps: int, batch_size: int = 8, lr: float = 2e-3, seed: int = 0
) -> AutoencoderKL:
    """Fit reconstruction (L1 + MSE); sets `scaling_factor` from the latents' spread.

    The posterior's spread is held at `LATENT_STD` instead of being learned through a KL term: a wide
    early posterior drowns the picture and costs most of the training.
    """
    torch.manual_seed(seed)
    vae = make_vae().to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=1e-4)
    progress = StepLog("vae", steps)
    order = batches(len(pixels), size=batch_size, seed=seed)
    for step, index in scheduled(optimizer, order, steps=steps, lr=lr):
        x = to_unit_range(pixels[index]).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(x).latent_dist
            latent = posterior.mean + LATENT_STD * torch.randn_like(posterior.mean)
            rebuilt = vae.decode(latent).sample.float()
        mse = F.mse_loss(rebuilt, x)
        size = posterior.mean.float().pow(2).mean()
        spread = (posterior.logvar.float() - 2 * math.log(LATENT_STD)).pow(2).mean()
        loss = F.l1_loss(rebuilt, x) + 2 * mse + 1e-4 * size + 1e-3 * spread
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        progress.log(step, psnr_db=10 * math.log10(4 / mse.item()))
    vae.to(memory_format=torch.contiguous_format).eval()
    latents = encode(vae, pixels[:2000])
    vae.register_to_config(scaling_factor=float(1 / latents.std()))
    return vae


def train_decoder(
    vae: AutoencoderKL,
    pixels: NDArray[np.uint8],
    latents: Tensor,
    *,
    steps: int,
    batch_size: int = 16,
    lr: float = 1e-3,
    seed: int = 0,
) -> None:
    """Fit the decoder further, in place, and leave the encoder: the latents stay what they are.

    Args:
        vae: trained.
        pixels: (M, H, W, 3).
        latents: (M, 8, H/4, W/4), unscaled, of the pixels.
        steps: of training.
        batch_size: pictures a step.
        lr: highest learning rate.
        seed: of the order.
    """
    vae.requires_grad_(False)
    decoder = torch.nn.ModuleList([vae.decoder, vae.post_quant_conv]).requires_grad_(True).train()
    decoder.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=1e-4)
    average = WeightAverage(decoder)
    progress = StepLog("decoder", steps)
    order = batches(len(pixels), size=batch_size, seed=seed)
    for step, index in scheduled(optimizer, order, steps=steps, lr=lr):
        x = to_unit_range(pixels[index]).contiguous(memory_format=torch.channels_last)
        latent = latents[torch.from_numpy(index)].contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            rebuilt = vae.decode(latent).sample.float()
        mse = F.mse_loss(rebuilt, x)
        loss = F.l1_loss(rebuilt, x) + 2 * mse
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        average.update(decoder, step=step)
        progress.log(step, psnr_db=10 * math.log10(4 / mse.item()))
    average.copy_to(decoder)
    vae.to(memory_format=torch.contiguous_format).eval()


@torch.no_grad()
def encode(vae: AutoencoderKL, pixels: NDArray[np.uint8], *, batch_size: int = 64) -> Tensor:
    """Mean latents (M, 8, H/4, W/4), unscaled."""
    parts = []
    for i in range(0, len(pixels), batch_size):
        with torch.autocast("cpu", torch.bfloat16):
            parts.append(vae.encode(to_unit_range(pixels[i : i + batch_size])).latent_dist.mean.float())
    return torch.cat(parts)


@torch.no_grad()
def reconstruction_psnr(vae: AutoencoderKL, pixels: NDArray[np.uint8]) -> float:
    """Mean PSNR in dB over pictures of what the VAE keeps."""
    values = []
    for i in range(0, len(pixels), 64):
        x = to_unit_range(pixels[i : i + 64])
        rebuilt = vae.decode(vae.encode(x).latent_dist.mean).sample.clamp(-1, 1)
        values.append(10 * torch.log10(4 / (rebuilt - x).pow(2).mean(dim=(1, 2, 3))))
    return float(torch.cat(values).mean())
