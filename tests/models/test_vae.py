"""The image autoencoder under autocast."""

import pytest
import torch

from uniemo_ray.models.vae import decode_latents, encode_images


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_stays_fp32_under_autocast(diffusion, dtype):
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = encode_images(diffusion.vae, pixels)
    with torch.autocast("cpu", dtype=dtype):
        assert (torch.ones(1, 1) @ torch.ones(1, 1)).dtype == dtype
        latents = encode_images(diffusion.vae, pixels)
        assert torch.equal(decode_latents(diffusion.vae, latents), diffusion.decode_latents(expected))
    assert torch.equal(latents, expected)
    assert latents.dtype == torch.float32
