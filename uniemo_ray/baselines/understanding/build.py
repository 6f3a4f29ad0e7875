"""Builds the networks that baselines train, for training and for use."""

# B batch, S image side in pixels, C classes

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from uniemo_ray.baselines.understanding.prompt_learning import (
    CoCoOp,
    ConditionalContext,
    Context,
    CoOp,
    PromptFrame,
    first_context,
)
from uniemo_ray.baselines.understanding.settings import BaselineSettings
from uniemo_ray.baselines.understanding.whole_networks import (
    ResNetClassifier,
    TowerClassifier,
    resnet_preprocess,
)
from uniemo_ray.config.baselines import TrainedBaseline
from uniemo_ray.data.preprocess import Preprocess
from uniemo_ray.data.readers import label_space
from uniemo_ray.losses import classification_loss
from uniemo_ray.models.clip import ClipParts, load_clip
from uniemo_ray.models.random_start import own_stream
from uniemo_ray.models.uniemo import decay_groups
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.training.batches import Collate
from uniemo_ray.training.optimizers import MomentumSgd, adamw
from uniemo_ray.training.parts import StageParts


class BaselineNetwork(NamedTuple):
    """A network and what belongs to it."""

    network: nn.Module
    """Pixels (B, 3, S, S) to logits (B, C)."""
    kept: nn.Module
    """The part of it that is saved after training."""
    preprocess: Preprocess
    """Pictures to pixels."""
    rates: Mapping[str, float]
    """Peak learning rate of parts whose rate is not the section's, by the start of parameters' names."""


class ClassificationObjective(nn.Module):
    """Cross-entropy of a network's logits.

    Args:
        network: pixels (B, 3, S, S) to logits (B, C); registered, so it trains.
        preprocess: makes squares of bytes its input.
    """

    def __init__(self, network: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.network, self._preprocess = network, preprocess

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`loss` and `accuracy` of a batch of `pixels` (B, S, S, 3) uint8 and `emotion` (B,)."""
        logits, labels = self.network(self._preprocess.from_bytes(batch["pixels"])), batch["emotion"]
        return {
            "loss": classification_loss(logits.float(), labels),
            "accuracy": (logits.argmax(dim=1) == labels).float().mean(),
        }


def build_baseline(settings: BaselineSettings) -> StageParts:
    """Network, objective, parameter groups and collate of a baseline that trains.

    Raises:
        ValueError: settings that do not fit together, or weights that are missing.
    """
    built, train, config = build_network(settings), settings.train, settings.config
    collate = Collate(
        preprocess=built.preprocess,
        scenes=settings.scenes,
        objects=settings.objects,
        crop_scale=train.crop_scale if train.augment else None,
        seed=config.seed,
        max_pixels=config.data.max_pixels,
        space=label_space(config.data),
    )
    objective = ClassificationObjective(built.network, built.preprocess)
    make_optimizer = adamw if settings.section.optimizer == "adamw" else MomentumSgd
    return StageParts(objective, _groups(built, settings), collate, {"net": built.kept}, make_optimizer)


def _groups(built: BaselineNetwork, settings: BaselineSettings) -> list[dict[str, Any]]:
    """The optimizer's groups: parts with a rate of their own, and the rest."""
    parts: dict[str, list[nn.Parameter]] = {"": [], **{part: [] for part in built.rates}}
    for name, parameter in built.network.named_parameters():
        if parameter.requires_grad:
            parts[next((part for part in built.rates if name.startswith(part)), "")].append(parameter)
    own = settings.section
    groups: list[dict[str, Any]] = []
    for part, parameters in parts.items():
        rate, decay = built.rates.get(part, own.rate), own.weight_decay
        name = part.rstrip(".") or settings.baseline
        if own.optimizer == "adamw":
            groups += decay_groups(name, parameters, rate=rate, weight_decay=decay)
        else:
            groups.append({"name": name, "params": parameters, "lr": rate, "weight_decay": decay})
    return groups


def load_network(settings: BaselineSettings) -> BaselineNetwork:
    """A trained network, for use.

    Raises:
        ValueError: settings without weights.
    """
    if not settings.weights:
        raise ValueError("BaselineSettings.weights is empty: give the trained network's file")
    built = build_network(settings)
    folder, _, name = settings.weights.rpartition("/")
    built.kept.load_state_dict(load_safetensors(open_store(folder or ".").read_bytes(name)))
    built.network.requires_grad_(False).eval()
    return built


def build_network(settings: BaselineSettings) -> BaselineNetwork:
    """A baseline's network as training starts from it.

    Raises:
        ValueError: settings that do not fit together, or weights that are missing.
    """
    with own_stream(settings.config.seed, f"baselines.{settings.baseline}"):
        return _NETWORKS[settings.baseline](settings)


def _clip(settings: BaselineSettings) -> ClipParts:
    encoder = settings.config.encoder
    return load_clip(encoder.clip, pretrained=encoder.clip_pretrained)


def _labels(settings: BaselineSettings) -> tuple[str, ...]:
    return label_space(settings.config.data).labels


def _coop(settings: BaselineSettings) -> BaselineNetwork:
    clip, labels, own = _clip(settings), _labels(settings), settings.config.baselines.coop
    frame = PromptFrame(clip, labels, context_length=own.context_length, position=own.position)
    classes = len(labels) if own.is_class_specific else None
    learner = Context(first_context(clip, length=own.context_length, words=own.start, classes=classes))
    return BaselineNetwork(CoOp(clip, frame, learner), learner, clip.preprocess(), {})


def _cocoop(settings: BaselineSettings) -> BaselineNetwork:
    clip, labels, own = _clip(settings), _labels(settings), settings.config.baselines.cocoop
    frame = PromptFrame(clip, labels, context_length=own.context_length)
    learner = ConditionalContext(
        first_context(clip, length=own.context_length, words=own.start),
        feature_width=clip.model.visual.output_dim,
        reduction=own.reduction,
    )
    return BaselineNetwork(CoCoOp(clip, frame, learner), learner, clip.preprocess(), {})


def _fine_tuning(settings: BaselineSettings) -> BaselineNetwork:
    clip = _clip(settings)
    network = TowerClassifier(clip, len(_labels(settings)))
    rates = {"head.": settings.config.baselines.fine_tuning.head_rate}
    return BaselineNetwork(network, network, clip.preprocess(), rates)


def _resnet(settings: BaselineSettings) -> BaselineNetwork:
    config = settings.config
    network = ResNetClassifier(config.evaluation.weights_dir, len(_labels(settings)))
    return BaselineNetwork(
        network, network, resnet_preprocess(), {"head.": config.baselines.resnet.head_rate}
    )


_NETWORKS: Mapping[TrainedBaseline, Callable[[BaselineSettings], BaselineNetwork]] = {
    "coop": _coop,
    "cocoop": _cocoop,
    "fine_tuning": _fine_tuning,
    "resnet": _resnet,
}
