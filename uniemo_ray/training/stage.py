"""Builds what a training worker needs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from uniemo_ray.data.readers import label_space
from uniemo_ray.models.build import build_net
from uniemo_ray.models.clip import ClipParts, embed_names, load_clip
from uniemo_ray.models.heads import AttributeHeads
from uniemo_ray.models.pipeline_folder import text_widths
from uniemo_ray.models.random_start import own_stream
from uniemo_ray.models.speed import tune_diffusion, tune_training
from uniemo_ray.models.uniemo import (
    UniEmoNet,
    decay_groups,
    freeze_parts,
    parameter_groups,
    set_trainable,
    understanding_state,
)
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.training.batches import Collate
from uniemo_ray.training.joint_objective import JointObjective
from uniemo_ray.training.name_embeddings import KINDS, NameEmbeddings
from uniemo_ray.training.objectives import UnderstandingObjective
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
    weights = _starting_weights(settings)
    is_joint = settings.stage == "joint"
    net = _network(settings, clip, weights, is_whole=is_joint)
    set_trainable(
        net,
        stage=2 if is_joint else 1,
        tower=config.encoder.tower,
        joint_training=not is_joint or config.fusion.joint_training,
    )
    freeze_parts(net, train.rates)
    groups: list[dict[str, Any]] = parameter_groups(
        net, train.rates, train.weight_decay, tower_weight_decay=train.tower_weight_decay
    )
    collate = _collate(settings, clip)
    missing = _missing_attributes(settings, clip)
    if not is_joint:
        tune_training(net, None, train)
        objective = UnderstandingObjective(net, config.losses, missing=missing, preprocess=collate.preprocess)
        return StageParts(objective, groups, collate, {"net": net})
    return _joint(net, groups, collate, settings, missing=missing, is_fusion_fresh=not _holds_fusion(weights))


def load_net(settings: StageSettings) -> UniEmoNet:
    """A stage's whole network with its weights, for use instead of training.

    After stage 1 its fusion is fresh.

    Raises:
        ValueError: settings without weights.
    """
    if not settings.weights:
        raise ValueError("StageSettings.weights is empty: give the trained network's file")
    clip = load_clip(settings.config.encoder.clip, pretrained=settings.config.encoder.clip_pretrained)
    return _network(settings, clip, _starting_weights(settings), is_whole=True).eval()


def _network(
    settings: StageSettings, clip: ClipParts, weights: dict[str, Tensor], *, is_whole: bool
) -> UniEmoNet:
    """The network, fresh as far as `weights` do not hold it; unless it `is_whole` without stage 2's parts."""
    stored = _stored_embeddings(settings)
    holds_all = bool(weights) and (not is_whole or _holds_fusion(weights))
    net = build_net(
        settings.config,
        clip=clip,
        scene_names=settings.scenes,
        object_names=settings.objects,
        text_width=text_widths(settings.config.diffusion) if is_whole else None,
        embed=stored,
        embed_verbatim=stored.verbatim if stored else None,
        classes=len(label_space(settings.config.data).labels),
        seed=None if holds_all else settings.config.seed,
    )
    if weights:
        _load(net, weights, str(settings.weights))
    for kind, rows in settings.coefficients.items():
        (net.scenes if kind == "scene" else net.objects).set_coefficients(rows)
    return net


def _stored_embeddings(settings: StageSettings) -> NameEmbeddings | None:
    """None lets CLIP's text tower do it; without any name its width alone counts."""
    if not settings.name_embeddings or not (settings.scenes or settings.objects):
        return None
    return NameEmbeddings.load(settings.name_embeddings)


def _load(net: UniEmoNet, weights: dict[str, Tensor], source: str) -> None:
    """Load weights that hold either all of a network or all but the parts of stage 2."""
    state = net.state_dict()
    wanted = state if _holds_fusion(weights) else understanding_state(state)
    lacking = sorted(wanted.keys() - weights.keys())
    if lacking:
        raise ValueError(f"{source} does not fit the settings: it lacks {lacking[0]}")
    net.load_state_dict(state | weights)


def _holds_fusion(weights: Mapping[str, Tensor]) -> bool:
    return any(name.startswith("fusion.") for name in weights)


def _starting_weights(settings: StageSettings) -> dict[str, Tensor]:
    """What the stage starts from, without the fusion in stage 1; empty for a fresh network."""
    if settings.weights is None:
        return {}
    weights = read_weights(settings.weights)
    if settings.stage == "understanding":
        return understanding_state(weights)
    if settings.fusion_weights is not None:
        before = read_weights(settings.fusion_weights)
        weights |= {name: before[name] for name in before.keys() - understanding_state(before).keys()}
    return weights


def _missing_attributes(settings: StageSettings, clip: ClipParts) -> Tensor | None:
    """Text embeddings (2, E) of "scene" and "object", where images without attribute are negatives."""
    if settings.config.losses.missing_attribute == "left_out":
        return None
    stored = _stored_embeddings(settings)
    return stored(KINDS) if stored else embed_names(clip, KINDS)


def read_weights(uri: str) -> dict[str, Tensor]:
    """Tensors of a safetensors file, a local path or s3://."""
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
        several_objects=config.losses.several_objects,
        has_object_labels=is_joint and config.losses.joint_attributes == "heads",
    )


def _attribute_heads(net: UniEmoNet, settings: StageSettings) -> AttributeHeads | None:
    """Fresh heads for stage 2, where they supervise the attributes and there are queries to read."""
    if settings.config.losses.joint_attributes == "contrast" or not net.has_queries:
        return None
    with own_stream(settings.config.seed, "attribute_heads"):
        return AttributeHeads(net.encoder.width, len(settings.scenes), len(settings.objects))


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
        found = diffusion.denoiser.load_state_dict(read_weights(settings.denoiser_weights), strict=False)
        if found.unexpected_keys:
            raise ValueError(
                f"{settings.denoiser_weights} does not fit diffusion.denoiser {choice.denoiser!r}: "
                f"unexpected {found.unexpected_keys[0]}"
            )
    return diffusion


def _joint(
    net: UniEmoNet,
    groups: list[dict[str, Any]],
    collate: Collate,
    settings: StageSettings,
    *,
    missing: Tensor | None,
    is_fusion_fresh: bool,
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
    if is_fusion_fresh and config.fusion.start == "words":
        _start_at_words(net, diffusion)
    tune_training(net, diffusion.denoiser, config.stage2)
    trained = [p for p in diffusion.denoiser.parameters() if p.requires_grad]
    exports: dict[str, nn.Module] = {"net": net}
    if trained:
        rates, decay = config.stage2.rates, config.stage2.weight_decay
        groups += decay_groups("denoiser", trained, rate=rates.denoiser, weight_decay=decay)
        exports["denoiser"] = diffusion.denoiser
    diffusion.to("cuda" if torch.cuda.is_available() else "cpu")
    heads = _attribute_heads(net, settings)
    if heads is not None:
        rate, decay = config.stage2.rates.attribute_heads, config.stage2.weight_decay
        groups += decay_groups("attribute_heads", list(heads.parameters()), rate=rate, weight_decay=decay)
    objective = JointObjective(
        net,
        diffusion,
        config.losses,
        prompt=config.diffusion.prompt,
        missing=missing,
        heads=heads,
        preprocess=collate.preprocess,
    )
    return StageParts(objective, groups, collate, exports)
