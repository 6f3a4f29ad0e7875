"""Small classifiers on frozen CLIP image features: emotion, scene, object (sections 2 and 5)."""

# n images, E CLIP joint width, C emotions, A names of one kind

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from uniemo_ray.config import ScorerConfig
from uniemo_ray.emotions import EMOTIONS

VERSION = 1
BATCH_SIZE = 128
KINDS = ("scene", "object")
_METADATA = "uniemo_ray"


class Standardise(nn.Module):
    """`(F - mean) / std` with the statistics of the training features.

    An affine map, so the layer behind it still is a linear layer on F.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def fit(self, features: Tensor) -> None:
        """Take the statistics of (n, E) features."""
        self.mean.copy_(features.mean(dim=0))
        self.std.copy_(features.std(dim=0, correction=0).clamp(min=1e-6))

    def forward(self, features: Tensor) -> Tensor:
        """(n, E) to (n, E)."""
        return (features - self.mean) / self.std


class EmotionClassifier(nn.Module):
    """Two fully connected layers on F (section 2)."""

    def __init__(self, width: int, hidden: int, classes: int = len(EMOTIONS)) -> None:
        super().__init__()
        self.standardise = Standardise(width)
        self.fc0 = nn.Linear(width, hidden)
        self.fc1 = nn.Linear(hidden, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (n, C) of features (n, E)."""
        return self.fc1(F.relu(self.fc0(self.standardise(features))))  # type: ignore[no-any-return]


class LinearHead(nn.Module):
    """One linear layer on F over the names of one kind (section 5)."""

    def __init__(self, width: int, names: int) -> None:
        super().__init__()
        self.standardise = Standardise(width)
        self.fc = nn.Linear(width, names)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (n, A) of features (n, E)."""
        return self.fc(self.standardise(features))  # type: ignore[no-any-return]


class ZeroShotHead(nn.Module):
    """CLIP zero-shot over names, for a training set without attributes (section 5)."""

    embeddings: Tensor
    scale: Tensor

    def __init__(self, embeddings: Tensor, scale: float) -> None:
        super().__init__()
        self.register_buffer("embeddings", F.normalize(embeddings, dim=1))
        self.register_buffer("scale", torch.tensor(float(scale)))

    def forward(self, features: Tensor) -> Tensor:
        """Logits (n, A): scaled cosine similarities of features (n, E) to the names."""
        return self.scale * F.normalize(features, dim=1) @ self.embeddings.T


class NameBank(NamedTuple):
    """Names of one kind with what CLIP knows of them."""

    names: tuple[str, ...]
    """A names, in the order of every index into them."""
    embeddings: Tensor
    """(A, E) CLIP text embeddings."""


class ScorerData(NamedTuple):
    """Training features and labels."""

    features: Tensor
    """(n, E) CLIP image features F, unnormalised."""
    emotion: Tensor
    """(n,) int64."""
    scene: Tensor
    """(n, scenes) 0/1, a row of zeros for an image without one."""
    object: Tensor
    """(n, objects) 0/1, several ones for several objects."""


class ScorerHeads(nn.Module):
    """Emotion classifier and name heads; an empty name list has no head."""

    def __init__(
        self,
        emotion: EmotionClassifier,
        *,
        scene: LinearHead | ZeroShotHead | None,
        object: LinearHead | ZeroShotHead | None,
        scene_names: Sequence[str],
        object_names: Sequence[str],
        labels: Sequence[str] = EMOTIONS,
    ) -> None:
        super().__init__()
        self.labels = tuple(labels)
        self.emotion, self.scene, self.object = emotion, scene, object
        self.names = {"scene": tuple(scene_names), "object": tuple(object_names)}

    def save_bytes(self) -> bytes:
        """A safetensors file with names and kinds in its metadata."""
        kinds = {kind: type(head).__name__ for kind in KINDS if (head := getattr(self, kind)) is not None}
        metadata = {"version": VERSION, "names": self.names, "heads": kinds, "emotions": self.labels}
        state = {key: value.contiguous() for key, value in self.state_dict().items()}
        # one entry: safetensors writes several in random order, and equal heads should be equal bytes
        return save(state, metadata={_METADATA: json.dumps(metadata)})

    def save(self, path: Path) -> None:
        """Write `save_bytes` to a file."""
        path.write_bytes(self.save_bytes())

    @staticmethod
    def load(path: Path) -> "ScorerHeads":
        """Read what `save` wrote.

        Raises:
            ValueError: for a file of another version or of something else, naming it.
        """
        with safe_open(path, framework="pt") as file:
            raw = json.loads((file.metadata() or {}).get(_METADATA, "{}"))
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        if raw.get("version") != VERSION:
            raise ValueError(
                f"{path} holds scorers of version {raw.get('version')}, expected {VERSION}: train them again"
            )
        names, kinds = raw["names"], raw["heads"]
        hidden, width = state["emotion.fc0.weight"].shape
        heads = ScorerHeads(
            EmotionClassifier(width, hidden, len(raw["emotions"])),
            scene=_empty_head(kinds.get("scene"), width, len(names["scene"])),
            object=_empty_head(kinds.get("object"), width, len(names["object"])),
            scene_names=names["scene"],
            object_names=names["object"],
            labels=raw["emotions"],
        )
        heads.load_state_dict(state)
        return heads.eval()


def _empty_head(kind: str | None, width: int, names: int) -> LinearHead | ZeroShotHead | None:
    if kind is None:
        return None
    return (
        LinearHead(width, names)
        if kind == LinearHead.__name__
        else ZeroShotHead(torch.ones(names, width), 1.0)
    )


def train_scorers(
    data: ScorerData,
    *,
    scenes: NameBank,
    objects: NameBank,
    config: ScorerConfig,
    logit_scale: float,
    seed: int = 0,
    validation: ScorerData | None = None,
    labels: Sequence[str] = EMOTIONS,
) -> ScorerHeads:
    """Fit the emotion classifier and, where images carry attributes, linear scene and object heads.

    A kind that no training image carries gets CLIP zero-shot over its names; a kind without names
    gets no head. The result is a function of the arguments alone.

    Args:
        data: training split.
        scenes: scene names of the attribute base.
        objects: object names of the attribute base.
        config: epochs, learning rate, hidden width.
        logit_scale: CLIP's own (already exponentiated), for zero-shot.
        seed: of initial weights and batch order.
        validation: with it, each head keeps its epoch of least validation loss.
        labels: the C emotions, in the order of the data's indices.

    Raises:
        ValueError: when there is no training image.
    """
    if not len(data.features):
        raise ValueError("expected training features for the scorers, got none: the training split is empty")
    width = data.features.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        emotion = EmotionClassifier(width, config.hidden, len(labels))
        one_hot = F.one_hot(data.emotion, len(labels)).float()
        held = validation and (validation.features, F.one_hot(validation.emotion, len(labels)).float())
        _fit(emotion, data.features, one_hot, config=config, held=held)
        heads = {
            kind: _name_head(kind, bank, data, config=config, logit_scale=logit_scale, validation=validation)
            for kind, bank in zip(KINDS, (scenes, objects), strict=True)
        }
    return ScorerHeads(
        emotion,
        scene=heads["scene"],
        object=heads["object"],
        scene_names=scenes.names,
        object_names=objects.names,
        labels=labels,
    ).eval()


def _name_head(
    kind: str,
    bank: NameBank,
    data: ScorerData,
    *,
    config: ScorerConfig,
    logit_scale: float,
    validation: ScorerData | None,
) -> LinearHead | ZeroShotHead | None:
    if not bank.names:
        return None
    targets = getattr(data, kind)
    if not targets.any():
        return ZeroShotHead(bank.embeddings, logit_scale)
    head = LinearHead(data.features.shape[1], len(bank.names))
    held = validation and (validation.features, getattr(validation, kind))
    _fit(head, data.features, targets, config=config, held=held)
    return head


def _fit(
    head: EmotionClassifier | LinearHead,
    features: Tensor,
    targets: Tensor,
    *,
    config: ScorerConfig,
    held: tuple[Tensor, Tensor] | None,
) -> None:
    """Cross-entropy against each row's normalised targets; rows without any are left out."""
    features, targets = _labelled(features, targets)
    head.standardise.fit(features)
    held = _labelled(*held) if held else None
    optimizer = torch.optim.AdamW(head.parameters(), lr=config.lr)
    best, kept = float("inf"), head.state_dict()
    for _ in range(config.epochs):
        for index in torch.split(torch.randperm(len(features)), BATCH_SIZE):
            loss = F.cross_entropy(head(features[index]), targets[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if held is None or not len(held[0]):
            continue
        with torch.no_grad():
            loss_held = float(F.cross_entropy(head(held[0]), held[1]))
        if loss_held < best:
            best, kept = loss_held, {key: value.clone() for key, value in head.state_dict().items()}
    head.load_state_dict(kept)


def _labelled(features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    targets = targets.float()
    has_label = targets.sum(dim=1) > 0
    return features[has_label], targets[has_label] / targets[has_label].sum(dim=1, keepdim=True)
