"""Whether a worker's CPUs decode images as fast as its GPU trains on them. Estimates."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from uniemo_ray.config import Config
from uniemo_ray.sizing.architectures import Architecture
from uniemo_ray.sizing.blueprint import Blueprint, Stage
from uniemo_ray.training.loading.threads import decoding_threads

DECODED_PER_CPU = 145
"""Photos of 800 x 600 and 120 kB that one CPU decodes and crops to 224 pixels in a second, by `decode_views`;
measured on one CPU of a server."""
DECODED_WITH_VAE = 76
"""The same where the VAE's square of 512 pixels is cut as well (`diffusion.target: crop`)."""
GPU_FLOPS = {"fp32": 19.5e12, "bf16": 312e12, "fp16": 312e12, "auto": 312e12}
"""Largest rate of an A100 by the precision of matrix products, from its data sheet, without TF32."""
GPU_SHARE = 0.4
"""Share of the largest rate that training reaches; an estimate."""
TRAINED, PASSED = 3, 2
"""Passes that training costs, counted as forward ones: of a network that trains, and of a frozen one that the
gradient only passes through."""


@dataclass(frozen=True, kw_only=True)
class Feeding:
    """One stage's images a second, of one worker."""

    stage: int
    cpus: int
    """That decode."""
    decoded: float
    """Images that they decode in a second."""
    needed: float
    """Images that the GPU trains on in a second."""

    @property
    def is_starved(self) -> bool:
        """Whether the GPU waits for images."""
        return self.decoded < self.needed

    @property
    def enough_cpus(self) -> int:
        """CPUs of a worker (`resources.cpus_per_worker`) with which it would not."""
        return 1 + -int(-self.needed * self.cpus // self.decoded)


def feeding_of(
    stage: Stage, blueprint: Blueprint, shape: Architecture, config: Config, *, measured: float | None
) -> Feeding:
    """What a stage's workers decode and need.

    Args:
        stage: 1 or 2.
        blueprint: The modules, without weights.
        shape: Of the diffusion model.
        config: Of the run.
        measured: Images that one GPU trains on in a second, if the user knows; else they are estimated from
            the operations of a forward pass.
    """
    with_vae = stage == 2 and config.diffusion.target == "crop"
    cpus = decoding_threads(config.resources.cpus_per_worker, has_gpu=True)
    return Feeding(
        stage=stage,
        cpus=cpus,
        decoded=cpus * (DECODED_WITH_VAE if with_vae else DECODED_PER_CPU),
        needed=measured or _estimate(stage, blueprint, shape, config),
    )


def _estimate(stage: Stage, blueprint: Blueprint, shape: Architecture, config: Config) -> float:
    train = config.stage1 if stage == 1 else config.stage2
    side = int(blueprint.net.encoder.visual.image_size[0])
    work = TRAINED * _flops(lambda: blueprint.net.understand(_meta(1, 3, side, side)))
    if stage == 2:
        latent = config.diffusion.size_px // shape.pixels_per_latent
        width = sum(int(values["hidden_size"]) for values in shape.text_encoders)
        length = max(int(values["max_position_embeddings"]) for values in shape.text_encoders)
        passes = PASSED if config.diffusion.denoiser == "frozen" else TRAINED
        extra = _size_conditions(shape)
        work += passes * _flops(
            lambda: blueprint.denoiser(
                _meta(1, int(shape.denoiser["in_channels"]), latent, latent),
                torch.zeros(1, dtype=torch.long, device="meta"),
                encoder_hidden_states=_meta(1, length, width),
                **extra,
            )
        )
    return GPU_SHARE * GPU_FLOPS[train.precision] / work


def _size_conditions(shape: Architecture) -> dict[str, Any]:
    """What SDXL's denoiser takes beside the text."""
    if shape.denoiser.get("addition_embed_type") != "text_time":
        return {}
    width = int(shape.text_encoders[-1]["projection_dim"])
    return {"added_cond_kwargs": {"text_embeds": _meta(1, width), "time_ids": _meta(1, 6)}}


def _meta(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, device="meta")


def _flops(run: Any) -> int:
    """Operations of a forward pass on the meta device."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return int(counter.get_total_flops())
