"""Models of the real architectures with random weights, built on the spot; for benchmarks and GPU tests."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from uniemo_ray.config import Config
from uniemo_ray.sizing.architectures import Architecture

if TYPE_CHECKING:
    from uniemo_ray.inference.heads import ScorerHeads
    from uniemo_ray.inference.painter import Painter
    from uniemo_ray.models.clip import ClipParts
    from uniemo_ray.models.diffusion import DiffusionParts
    from uniemo_ray.models.uniemo import UniEmoNet

Groups = Callable[[int], list[dict[str, Any]]]
"""Parameter groups of stage 1 or 2."""


def reduced(shape: Architecture, divide: int) -> Architecture:
    """The same architecture, smaller in all parts: a fraction of the denoiser's width, a VAE of 32 channels
    and text encoders of two layers.
    """
    if divide == 1:
        return shape
    denoiser = dict(shape.denoiser)
    denoiser["block_out_channels"] = tuple(width // divide for width in denoiser["block_out_channels"])
    heads = denoiser["attention_head_dim"]
    if not isinstance(heads, int):
        denoiser["attention_head_dim"] = tuple(max(1, count // divide) for count in heads)
    vae = {**shape.vae, "block_out_channels": tuple(32 for _ in shape.vae["block_out_channels"])}
    encoders = tuple({**values, "num_hidden_layers": 2} for values in shape.text_encoders)
    name = f"{shape.name} (denoiser of 1/{divide} width, VAE of 32 channels, text encoders of 2 layers)"
    return replace(shape, name=name, denoiser=denoiser, vae=vae, text_encoders=encoders)


def make_net(config: Config, text_width: int | tuple[int, ...]) -> "tuple[UniEmoNet, Groups]":
    """A network with random weights, as both stages train it."""
    from uniemo_ray.models.build import empty_net
    from uniemo_ray.models.clip import find_clip_config
    from uniemo_ray.models.uniemo import parameter_groups, set_trainable

    net = empty_net(
        config,
        clip_config=find_clip_config(config.encoder.clip)[0]["model_cfg"],
        scene_names=[f"scene {i}" for i in range(254)],
        object_names=[f"object {i}" for i in range(409)],
        text_width=text_width,
    )
    # without coefficients scene and object would weigh nothing
    for base in (net.scenes, net.objects):
        base.set_coefficients({name: [0.125] * 8 for name in base.names})
        torch.nn.init.normal_(base.embeddings)

    def groups(stage: int) -> list[dict[str, Any]]:
        set_trainable(net, stage=stage, tower="train")
        train = config.stage1 if stage == 1 else config.stage2
        return parameter_groups(net, train.rates, train.weight_decay)

    return net, groups


def make_diffusion(shape: Architecture, *, device: str = "cpu") -> "DiffusionParts":
    """Stable Diffusion or SDXL with random weights and the shipped vocabulary at full length.

    On a GPU the weights are drawn there: a CPU takes a minute for the denoiser.
    """
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    from uniemo_ray.models.diffusion import DiffusionParts
    from uniemo_ray.models.pipeline_folder import TINY_FOLDER

    length = int(shape.text_encoders[0]["max_position_embeddings"])
    tokenizer = CLIPTokenizer.from_pretrained(TINY_FOLDER / "tokenizer", model_max_length=length)
    first, *rest = (CLIPTextConfig(**values) for values in shape.text_encoders)
    with torch.device(device):
        second = {"text_encoder_2": CLIPTextModelWithProjection(rest[0])} if rest else {}
        parts = {
            "vae": AutoencoderKL(**shape.vae),
            "denoiser": UNet2DConditionModel(**shape.denoiser),
            "text_encoder": CLIPTextModel(first),
            **second,
        }
    return DiffusionParts(
        **parts,
        tokenizer=tokenizer,
        schedule=DDPMScheduler(beta_schedule="scaled_linear"),
        tokenizer_2=tokenizer if rest else None,
    )


def make_clip(name: str) -> "ClipParts":
    """A frozen CLIP of open_clip's architecture `name`, or of the shipped one's (`tiny`)."""
    from uniemo_ray.models import clip

    config, _ = clip.find_clip_config(name)
    model = clip.make_clip(config["model_cfg"]).requires_grad_(False).eval()
    return clip.clip_parts(model, config, None)


def make_heads(width: int, *, names: int = 100) -> "ScorerHeads":
    """Scorers on CLIP features of this width."""
    from uniemo_ray.inference.heads import EmotionClassifier, LinearHead, ScorerHeads

    return ScorerHeads(
        EmotionClassifier(width, 512),
        scene=LinearHead(width, names),
        object=LinearHead(width, names),
        scene_names=[f"scene {i}" for i in range(names)],
        object_names=[f"object {i}" for i in range(names)],
    ).eval()


def make_painter(net: "UniEmoNet", diffusion: "DiffusionParts", *, device: str) -> "Painter":
    """A painter of a random net, whose emotion space is random as well."""
    from uniemo_ray.emotions import EMOTIONS
    from uniemo_ray.inference.painter import Painter
    from uniemo_ray.statistics.gaussian_space import GaussianSpace

    rng, shape = np.random.default_rng(0), (len(EMOTIONS), net.encoder.width)
    space = GaussianSpace(
        mean={member: rng.normal(size=shape) for member in net.fusion.members},
        std={member: np.full(shape, 0.5) for member in net.fusion.members},
        counts=np.full(len(EMOTIONS), 9),
    )
    return Painter(diffusion, net=net, space=space, device=device)


def input_side(clip: str) -> int:
    """Side in pixels of what a CLIP sees."""
    from uniemo_ray.models.clip import find_clip_config

    return int(find_clip_config(clip)[0]["model_cfg"]["vision_cfg"]["image_size"])


def make_batch(side_px: int, count: int, *, size_px: int | None = None) -> dict[str, Tensor]:
    """Random pictures with labels; with `size_px` also the VAE's view of them."""
    batch = {
        "pixels": torch.randn(count, 3, side_px, side_px),
        "emotion": torch.arange(count) % 8,
        "scene": torch.arange(count),
        "object": torch.arange(count),
    }
    return (
        batch if size_px is None else {**batch, "unit_pixels": torch.rand(count, 3, size_px, size_px) * 2 - 1}
    )
