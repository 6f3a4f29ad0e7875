"""The same models in plain loops of open_clip and diffusers: what `bench_gpu.py` compares with.

Each function returns a call that does the work of one batch. None of them knows expert queries, conditions,
shards or provenance.
"""

import io
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from uniemo_ray.inference.sampler import make_scheduler
from uniemo_ray.models.clip import ClipParts
from uniemo_ray.models.conditioning import tokenize
from uniemo_ray.models.diffusion import DiffusionParts

Work = Callable[[], object]
CLASSES = 8


def _autocast(device: str, dtype: torch.dtype) -> AbstractContextManager[Any]:
    return nullcontext() if dtype == torch.float32 else torch.autocast(device, dtype=dtype)


class _Tower(nn.Module):
    """CLIP's image tower with a linear head and, for stage 2, a linear condition."""

    def __init__(self, clip: ClipParts, text_width: int) -> None:
        super().__init__()
        self.visual = deepcopy(clip.model.visual).requires_grad_(True)
        width = int(self.visual.output_dim)
        self.head, self.condition = nn.Linear(width, CLASSES), nn.Linear(width, text_width)


def bare_stage1(clip: ClipParts, batch: dict[str, Tensor], *, device: str, dtype: torch.dtype) -> Work:
    """A step that fine-tunes CLIP's image tower as a classifier."""
    tower = _Tower(clip, 1).to(device)
    optimizer = torch.optim.AdamW(tower.parameters(), lr=1e-5)

    def step() -> None:
        pixels, emotion = (batch[name].to(device, non_blocking=True) for name in ("pixels", "emotion"))
        with _autocast(device, dtype):
            loss = functional.cross_entropy(tower.head(tower.visual(pixels)), emotion)
        _update(tower, optimizer, loss)

    return step


def bare_stage2(
    clip: ClipParts,
    diffusion: DiffusionParts,
    batch: dict[str, Tensor],
    *,
    device: str,
    dtype: torch.dtype,
    is_checkpointed: bool,
) -> Work:
    """As stage 1, and the image's features steer a frozen denoiser whose loss trains the tower."""
    tower = _Tower(clip, diffusion.text_width).to(device)
    tower.visual.set_grad_checkpointing(is_checkpointed)
    optimizer = torch.optim.AdamW(tower.parameters(), lr=1e-5)
    unet, schedule = diffusion.denoiser, diffusion.schedule
    ids = tokenize(diffusion.tokenizer, ["a photo"] * len(batch["emotion"]))[0].to(device)

    def step() -> None:
        moved = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        with torch.no_grad():
            vae = diffusion.vae
            latents = vae.encode(moved["unit_pixels"]).latent_dist.mean * vae.config["scaling_factor"]
            hidden = diffusion.text_encoder(ids).last_hidden_state
        noise = torch.randn_like(latents)
        times: Any = torch.randint(1000, (len(latents),), device=device)
        with _autocast(device, dtype):
            seen = tower.visual(moved["pixels"])
            states = hidden + tower.condition(seen)[:, None]
            noisy = schedule.add_noise(latents, noise, times)
            predicted = unet(noisy, times, encoder_hidden_states=states).sample
            loss = functional.cross_entropy(tower.head(seen), moved["emotion"])
        _update(tower, optimizer, loss + functional.mse_loss(predicted.float(), noise))

    return step


def _update(module: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimizer.step()


def bare_generation(
    diffusion: DiffusionParts, *, count: int, steps: int, guidance: float, size_px: int, dtype: torch.dtype
) -> Work:
    """`StableDiffusionPipeline` on copies of the same parts, all in `dtype`; its pictures as PNG files."""
    from diffusers import StableDiffusionPipeline

    names = ("vae", "denoiser", "text_encoder")
    vae, unet, text = (nn.Module.to(deepcopy(getattr(diffusion, name)), dtype) for name in names)
    pipeline = StableDiffusionPipeline(
        vae=vae,
        unet=unet,
        text_encoder=text,
        tokenizer=diffusion.tokenizer,
        scheduler=make_scheduler(diffusion.schedule.config, "unipc"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    sides = {"height": size_px, "width": size_px}

    def paint() -> None:
        made = pipeline(["a photo"] * count, num_inference_steps=steps, guidance_scale=guidance, **sides)
        for image in made.images:
            image.save(io.BytesIO(), format="PNG")

    return paint


def bare_scoring(clip: ClipParts, images: Sequence[bytes], *, batch: int, device: str) -> Work:
    """open_clip's own preprocessing and image features, one batch after the other."""
    from open_clip.transform import image_transform

    transform = image_transform(clip.image_size_px, is_train=False, mean=clip.mean, std=clip.std)
    model = clip.model.to(device)

    @torch.no_grad()
    def score() -> None:
        for start in range(0, len(images), batch):
            opened = [Image.open(io.BytesIO(data)).convert("RGB") for data in images[start : start + batch]]
            pixels = torch.stack([transform(image) for image in opened]).to(device)
            functional.normalize(model.encode_image(pixels), dim=-1).cpu()

    return score
