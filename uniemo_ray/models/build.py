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
from uniemo_ray.models.attributes import AttributeBase, MappedNames
from uniemo_ray.models.clip import ClipParts, embed_names, make_clip
from uniemo_ray.models.encoder import ExpertQueryEncoder
from uniemo_ray.models.fusion import ConditionFusion
from uniemo_ray.models.random_start import given_or_drawn
from uniemo_ray.models.uniemo import Generation, UniEmoNet

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
    text_width: int | Sequence[int] | None,
    embed: Callable[[Sequence[str]], Tensor] | None = None,
    embed_verbatim: Callable[[Sequence[str]], Tensor] | None = None,
    classes: int = len(EMOTIONS),
    seed: int | None = None,
) -> UniEmoNet:
    """A fresh network on a copy of CLIP's image tower; `clip` itself stays frozen and untouched.

    Args:
        config: whole config, or anything with its sections encoder, fusion and losses.
        clip: gives the tower and the name embeddings.
        scene_names: scene base; empty for data without scenes.
        object_names: object base; empty for data without objects.
        text_width: T of the diffusion model's text encoder(s). None leaves out the parts of stage 2; then no
            setting of `config.fusion` is read.
        embed: names (n,) to their text embeddings (n, E), such as stored ones; by default CLIP's own.
        embed_verbatim: the same of names with their underscores, for `losses.names: verbatim` and
            `fusion.match: mapped`.
        classes: C, emotions that the heads tell apart.
        seed: of fresh weights; None draws one from torch's own stream.

    Raises:
        ValueError: for layers that cannot be split, fusion members that need missing queries, or names and
            conditions of two widths where they are to be compared.
    """
    verbatim = embed_verbatim or partial(embed_names, clip, is_verbatim=True)
    embed = verbatim if config.losses.names == "verbatim" else embed or partial(embed_names, clip)
    return _assemble(
        config,
        visual=deepcopy(clip.model.visual).requires_grad_(True),
        scenes=AttributeBase(scene_names, embed(scene_names), classes),
        objects=AttributeBase(object_names, embed(object_names), classes),
        text_width=text_width,
        verbatim=verbatim,
        seed=seed,
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
        verbatim=lambda names: torch.zeros(len(names), total_width(text_width)),
        seed=None,
    ).eval()


def _assemble(
    config: NetSettings,
    *,
    visual: VisionTransformer,
    scenes: AttributeBase,
    objects: AttributeBase,
    text_width: int | Sequence[int] | None,
    verbatim: Callable[[Sequence[str]], Tensor],
    seed: int | None,
) -> UniEmoNet:
    seed = given_or_drawn(seed)
    encoder = ExpertQueryEncoder(visual, config.encoder, seed=seed)
    generation = None
    if text_width is not None:
        mapped = None
        if config.fusion.match == "mapped":
            embeddings = verbatim((*objects.names, *scenes.names))
            check_match(config.fusion, joint_width=embeddings.shape[1], text_width=text_width)
            mapped = MappedNames(scenes, objects, embeddings)
        generation = Generation(
            fusion=ConditionFusion(encoder.width, text_width, _members(config), seed=seed),
            mapped=mapped,
            use_coefficients=config.fusion.use_coefficients,
            has_own_head=config.fusion.condition_head == "own",
        )
    return UniEmoNet(
        encoder, scenes=scenes, objects=objects, losses=config.losses, generation=generation, seed=seed
    )


def total_width(text_width: int | Sequence[int]) -> int:
    """T over all text encoders."""
    return text_width if isinstance(text_width, int) else sum(text_width)


def check_match(fusion: FusionConfig, *, joint_width: int, text_width: int | Sequence[int]) -> None:
    """Raise ValueError where mapped queries (T) are to be compared with names (E) of another width."""
    width = total_width(text_width)
    if fusion.match == "mapped" and width != joint_width:
        raise ValueError(
            f"fusion.match is 'mapped', but conditions are {width} wide and CLIP's names {joint_width}: take "
            f"a CLIP and a diffusion model of one width (ViT-L/14 and SD 1.5), or fusion.match=projected"
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
