"""A run's models on torch's meta device: the real modules, without any weight in memory."""

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from uniemo_ray.config import Config
from uniemo_ray.data.readers import label_space
from uniemo_ray.models.build import empty_net
from uniemo_ray.models.clip import CONFIG_FILE, find_clip_config
from uniemo_ray.models.diffusion import train_denoiser
from uniemo_ray.models.uniemo import PARTS, UniEmoNet, freeze_parts, part_of, set_trainable
from uniemo_ray.sizing.architectures import Architecture
from uniemo_ray.store.filesystem import open_store

Stage = Literal[1, 2]
STAGES: tuple[Stage, ...] = (1, 2)


@dataclass(frozen=True)
class Blueprint:
    """All modules of a run on the meta device."""

    net: UniEmoNet
    denoiser: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoders: tuple[nn.Module, ...]


@dataclass(frozen=True)
class PartSize:
    """Parameters of one part of the model."""

    name: str
    total: int
    """All of them."""
    stage1: int
    """Those that train in stage 1."""
    stage2: int
    """Those that train in stage 2."""


def build_blueprint(config: Config, architecture: Architecture, *, names: tuple[int, int]) -> Blueprint:
    """Build everything; `names` are the sizes of the scene and object base.

    Raises:
        ValueError: for an unknown CLIP, or layers that cannot be split.
    """
    clip_config = _read_clip_config(config.encoder.clip)
    with torch.device("meta"):
        net = empty_net(
            config,
            clip_config=clip_config,
            scene_names=[f"scene {i}" for i in range(names[0])],
            object_names=[f"object {i}" for i in range(names[1])],
            text_width=architecture.text_widths,
            classes=len(label_space(config.data).labels),
        )
        denoiser = UNet2DConditionModel(**architecture.denoiser).requires_grad_(False).eval()
        vae = AutoencoderKL(**architecture.vae).requires_grad_(False).eval()
        kinds = (CLIPTextModel, CLIPTextModelWithProjection)
        encoders = tuple(
            cast(nn.Module, kinds[min(i, 1)](CLIPTextConfig(**values))).requires_grad_(False).eval()
            for i, values in enumerate(architecture.text_encoders)
        )
        train_denoiser(denoiser, mode=config.diffusion.denoiser, lora_rank=config.diffusion.lora_rank)
    return Blueprint(net, denoiser, vae, encoders)


def _read_clip_config(clip: str) -> dict[str, Any]:
    """open_clip's `model_cfg`; of a folder in storage this file alone is read, and no weights."""
    if "://" not in clip:
        found: dict[str, Any] = find_clip_config(clip)[0]
    else:
        store = open_store(clip)
        if not store.exists(CONFIG_FILE):
            raise ValueError(f"encoder.clip {clip} has no {CONFIG_FILE}: give a folder of `uniemo fetch`")
        found = store.read_json(CONFIG_FILE)
    model: dict[str, Any] = found["model_cfg"]
    return model


def part_sizes(blueprint: Blueprint, config: Config) -> list[PartSize]:
    """Parameters by part: those of the network, then denoiser, VAE and text encoders."""
    first, second = (_trained_by_part(blueprint.net, config, stage) for stage in STAGES)
    total = dict.fromkeys(PARTS, 0)
    for name, parameter in blueprint.net.named_parameters():
        total[part_of(name)] += parameter.numel()
    sizes = [PartSize(part, total[part], first[part], second[part]) for part in PARTS]
    denoiser = count(blueprint.denoiser), count(blueprint.denoiser, is_trained=True)
    sizes.append(PartSize("denoiser", denoiser[0], 0, denoiser[1]))
    sizes.append(PartSize("vae", count(blueprint.vae), 0, 0))
    sizes.append(PartSize("text encoders", sum(count(part) for part in blueprint.text_encoders), 0, 0))
    return sizes


def count(module: nn.Module, *, is_trained: bool = False) -> int:
    """Parameters of a module, or those that require a gradient."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not is_trained)


def choose_trained(net: UniEmoNet, config: Config, stage: Stage) -> None:
    """Set `requires_grad` as the training job does."""
    set_trainable(net, stage=stage, tower=config.encoder.tower, joint_training=config.fusion.joint_training)
    freeze_parts(net, (config.stage1 if stage == 1 else config.stage2).rates)


def _trained_by_part(net: UniEmoNet, config: Config, stage: Stage) -> dict[str, int]:
    choose_trained(net, config, stage)
    found = dict.fromkeys(PARTS, 0)
    for name, parameter in net.named_parameters():
        found[part_of(name)] += parameter.numel() if parameter.requires_grad else 0
    return found
