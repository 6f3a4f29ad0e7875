"""Assemble `UniEmoNet` from settings: on CLIP's weights, or empty to take a saved state."""

# n names, E joint embedding width, T text-embedding width

import logging
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, Protocol

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor

from uniemo_ray.config import EncoderConfig, FusionConfig, LossConfig
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.models.attributes import AttributeBase
from uniemo_ray.models.clip import ClipParts, embed_names, make_clip
from uniemo_ray.models.encoder import ExpertQueryEncoder
from uniemo_ray.models.fusion import ConditionFusion
from uniemo_ray.models.uniemo import UniEmoNet

logger = logging.getLogger(__name__)


class NetSettings(Protocol):
    """The sections of a config that shape the network; `uniemo_ray.config.Config` has them."""

    @property
    def encoder(self) -> EncoderConfig:
        """Image tower and queries."""

    @property
    def fusion(self) -> FusionConfig:
        """Members and coefficients."""

    @property
    def losses(self) -> LossConfig:
        """Temperature, and whether it is learnt."""


def build_net(
    config: NetSettings,
    *,
    clip: ClipParts,
    scene_names: Sequence[str],
    object_names: Sequence[str],
    text_width: int | Sequence[int],
    embed: Callable[[Sequence[str]], Tensor] | None = None,
    classes: int = len(EMOTIONS),
) -> UniEmoNet:
    """A fresh network on a copy of CLIP's image tower; `clip` itself stays frozen and untouched.

    Args:
        config: whole config, or anything with its sections encoder, fusion and losses.
        clip: gives the tower and the name embeddings.
        scene_names: scene base; empty for data without scenes.
        object_names: object base; empty for data without objects.
        text_width: T of the diffusion model's text encoder(s).
        embed: names (n,) to their text embeddings (n, E), such as stored ones; by default CLIP's own.
        classes: C, emotions that the heads tell apart.

    Raises:
        ValueError: for layers that cannot be split, or fusion members that need missing queries.
    """
    embed = embed or partial(embed_names, clip)
    return _assemble(
        config,
        visual=deepcopy(clip.model.visual).requires_grad_(True),
        scenes=AttributeBase(scene_names, embed(scene_names), classes),
        objects=AttributeBase(object_names, embed(object_names), classes),
        text_width=text_width,
    )


def empty_net(
    config: NetSettings,
    *,
    clip_config: dict[str, Any],
    scene_names: Sequence[str],
    object_names: Sequence[str],
    text_width: int | Sequence[int],
    classes: int = len(EMOTIONS),
) -> UniEmoNet:
    """A network of the same architecture with arbitrary weights, ready for `load_state_dict`.

    `clip_config` is open_clip's `model_cfg`; no CLIP weights are needed.
    """
    visual = make_clip(clip_config).visual.requires_grad_(True)
    return _assemble(
        config,
        visual=visual,
        scenes=AttributeBase(scene_names, torch.zeros(len(scene_names), visual.output_dim), classes),
        objects=AttributeBase(object_names, torch.zeros(len(object_names), visual.output_dim), classes),
        text_width=text_width,
    ).eval()


def _assemble(
    config: NetSettings,
    *,
    visual: VisionTransformer,
    scenes: AttributeBase,
    objects: AttributeBase,
    text_width: int | Sequence[int],
) -> UniEmoNet:
    encoder = ExpertQueryEncoder(visual, config.encoder)
    return UniEmoNet(
        encoder,
        fusion=ConditionFusion(encoder.width, text_width, _members(config)),
        scenes=scenes,
        objects=objects,
        losses=config.losses,
        use_coefficients=config.fusion.use_coefficients,
    )


def _members(config: NetSettings) -> tuple[str, ...]:
    """Fusion members that the encoder can give, so that `queries: none` stays one switch."""
    members: tuple[str, ...] = config.fusion.members
    if config.encoder.queries != "none":
        return members
    left = tuple(name for name in members if name in ("cls", "patch"))
    if not left:
        raise ValueError(
            f"fusion.members {list(members)} all need queries, but encoder.queries is 'none': add cls"
        )
    if left != members:
        logger.info("encoder.queries is 'none': fusing %s of fusion.members %s", list(left), list(members))
    return left
