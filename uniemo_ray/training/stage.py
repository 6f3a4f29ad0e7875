"""Builds what a training worker needs."""

from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from uniemo_ray.data.readers import label_space
from uniemo_ray.models.build import build_net
from uniemo_ray.models.clip import ClipParts, load_clip
from uniemo_ray.models.pipeline_folder import text_widths
from uniemo_ray.models.speed import tune_diffusion, tune_training
from uniemo_ray.models.uniemo import UniEmoNet, decay_groups, parameter_groups, set_trainable
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.training.batches import Collate
from uniemo_ray.training.name_embeddings import NameEmbeddings
from uniemo_ray.training.objectives import JointObjective, UnderstandingObjective
from uniemo_ray.training.parts import StageParts
from uniemo_ray.training.stage_settings import StageSettings

if TYPE_CHECKING:
    from uniemo_ray.models.diffusion import DiffusionParts


def build_stage(settings: StageSettings) -> StageParts:
    """Build network, objective, parameter groups and collate of a stage.

    Raises:
        ValueError: settings that do not fit together.
    """
    config, train = settings.config, settings.train
    clip = load_clip(config.encoder.clip, pretrained=config.encoder.clip_pretrained)
    weights = _read_weights(settings.weights) if settings.weights else None
    net = _network(settings, clip, weights)
    is_joint = settings.stage == "joint"
    set_trainable(
        net,
        stage=2 if is_joint else 1,
        tower=config.encoder.tower,
        joint_training=not is_joint or config.fusion.joint_training,
    )
    groups: list[dict[str, Any]] = parameter_groups(
        net, train.rates, train.weight_decay, tower_weight_decay=train.tower_weight_decay
    )
    collate = _collate(settings, clip)
    if not is_joint:
        tune_training(net, None, train)
        return StageParts(UnderstandingObjective(net, config.losses), groups, collate, {"net": net})
    return _joint(net, groups, collate, settings)


def load_net(settings: StageSettings) -> UniEmoNet:
    """A stage's network with its weights, for use instead of training.

    Raises:
        ValueError: settings without weights.
    """
    if not settings.weights:
        raise ValueError("StageSettings.weights is empty: give the trained network's file")
    clip = load_clip(settings.config.encoder.clip, pretrained=settings.config.encoder.clip_pretrained)
    return _network(settings, clip, _read_weights(settings.weights)).eval()


def _network(settings: StageSettings, clip: ClipParts, weights: dict[str, Tensor] | None) -> UniEmoNet:
    stored = _stored_embeddings(settings)
    net = build_net(
        settings.config,
        clip=clip,
        scene_names=settings.scenes,
        object_names=settings.objects,
        text_width=text_widths(settings.config.diffusion),
        embed=stored,
        embed_verbatim=stored.verbatim if stored else None,
        classes=len(label_space(settings.config.data).labels),
    )
    if weights is not None:
        net.load_state_dict(weights)
    for kind, rows in settings.coefficients.items():
        (net.scenes if kind == "scene" else net.objects).set_coefficients(rows)
    return net


def _stored_embeddings(settings: StageSettings) -> NameEmbeddings | None:
    """None lets CLIP's text tower do it; without any name its width alone counts."""
    if not settings.name_embeddings or not (settings.scenes or settings.objects):
        return None
    return NameEmbeddings.load(settings.name_embeddings)


def _read_weights(uri: str) -> dict[str, Tensor]:
    folder, _, name = uri.rpartition("/")
    weights: dict[str, Tensor] = load_safetensors(open_store(folder or ".").read_bytes(name))
    return weights


def _start_at_words(net: UniEmoNet, diffusion: "DiffusionParts") -> None:
    """Let the fusion start at the words of the attribute base, or at all words without attributes."""
    names = (*net.scenes.names, *net.objects.names)
    words = diffusion.embed_words(names) if len(names) >= 2 else diffusion.word_embeddings
    net.fusion.start_at_words(words)


def _collate(settings: StageSettings, clip: ClipParts) -> Collate:
    config, train, is_joint = settings.config, settings.train, settings.stage == "joint"
    return Collate(
        preprocess=clip.preprocess(config.encoder.preprocess),
        scenes=settings.scenes,
        objects=settings.objects,
        crop_scale=train.crop_scale if train.augment else None,
        seed=config.seed,
        max_pixels=config.data.max_pixels,
        unit_size_px=config.diffusion.size_px if is_joint else None,
        crops_unit=is_joint and config.diffusion.target == "crop",
        space=label_space(config.data),
    )


def load_trained_diffusion(settings: StageSettings) -> "DiffusionParts":
    """The diffusion model, with what trains of its denoiser unfrozen and as an earlier round left it.

    Raises:
        ValueError: weights that do not belong to this denoiser.
    """
    from uniemo_ray.models.diffusion import load_configured, unfreeze_denoiser  # seconds of imports

    choice = settings.config.diffusion
    diffusion = load_configured(choice)
    unfreeze_denoiser(diffusion, mode=choice.denoiser, lora_rank=choice.lora_rank)
    if settings.denoiser_weights:
        found = diffusion.denoiser.load_state_dict(_read_weights(settings.denoiser_weights), strict=False)
        if found.unexpected_keys:
            raise ValueError(
                f"{settings.denoiser_weights} does not fit diffusion.denoiser {choice.denoiser!r}: "
                f"unexpected {found.unexpected_keys[0]}"
            )
    return diffusion


def _joint(
    net: UniEmoNet, groups: list[dict[str, Any]], collate: Collate, settings: StageSettings
) -> StageParts:
    config = settings.config
    diffusion = load_trained_diffusion(settings)
    if diffusion.text_width != len(net.fusion.offset):
        raise ValueError(
            f"the condition has width {len(net.fusion.offset)}, but diffusion.model "
            f"{config.diffusion.model!r} has text encoders of {diffusion.text_widths}: "
            "set diffusion.text_widths to these, or leave it empty"
        )
    tune_diffusion(diffusion, config.diffusion)
    is_fresh = settings.weights is None or settings.is_fusion_fresh
    if is_fresh and config.fusion.start == "words":
        _start_at_words(net, diffusion)
    tune_training(net, diffusion.denoiser, config.stage2)
    trained = [p for p in diffusion.denoiser.parameters() if p.requires_grad]
    exports: dict[str, nn.Module] = {"net": net}
    if trained:
        rates, decay = config.stage2.rates, config.stage2.weight_decay
        groups += decay_groups("denoiser", trained, rate=rates.denoiser, weight_decay=decay)
        exports["denoiser"] = diffusion.denoiser
    diffusion.to("cuda" if torch.cuda.is_available() else "cpu")
    objective = JointObjective(net, diffusion, config.losses, prompt=config.diffusion.prompt)
    return StageParts(objective, groups, collate, exports)
