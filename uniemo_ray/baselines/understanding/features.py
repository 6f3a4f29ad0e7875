"""Classifiers on frozen CLIP image features: zero-shot by an ensemble of prompts, or a linear probe."""

# B images, E joint embedding width, C classes, K prompts of the ensemble

from collections.abc import Sequence

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from uniemo_ray.baselines.understanding.prompts import spoken
from uniemo_ray.models.clip import ClipParts


class FeatureClassifier(nn.Module):
    """One linear layer on image features, or on their directions.

    Args:
        weight: (C, E).
        bias: (C,).
        is_normalised: whether features are scaled to length 1 first.
    """

    weight: Tensor
    bias: Tensor
    is_normalised: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, *, is_normalised: bool) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.register_buffer("is_normalised", torch.tensor(is_normalised))

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, C) of features (B, E)."""
        seen = F.normalize(features, dim=1) if self.is_normalised else features
        return F.linear(seen, self.weight, self.bias)

    def to_bytes(self) -> bytes:
        """As a safetensors file."""
        return bytes(save({name: value.contiguous() for name, value in self.state_dict().items()}))

    @classmethod
    def from_bytes(cls, data: bytes) -> "FeatureClassifier":
        """From `to_bytes`."""
        stored = load(data)
        return cls(stored["weight"], stored["bias"], is_normalised=bool(stored["is_normalised"]))


def zero_shot(clip: ClipParts, labels: Sequence[str], prompts: Sequence[str]) -> FeatureClassifier:
    """CLIP's similarity to the classes, over its temperature.

    Args:
        clip: the frozen CLIP.
        labels: names of the C classes.
        prompts: K texts with `{}` for the name.
    """
    scale = clip.model.logit_scale.detach().exp()
    weight = scale * ensemble(clip, labels, prompts)
    return FeatureClassifier(weight.cpu(), torch.zeros(len(labels)), is_normalised=True)


@torch.no_grad()
def ensemble(clip: ClipParts, labels: Sequence[str], prompts: Sequence[str]) -> Tensor:
    """Direction (C, E) of each class: the mean of its normalised text features, normalised again."""
    device = next(clip.model.parameters()).device
    found = []
    for label in labels:
        ids = clip.tokenizer([prompt.format(spoken(label)) for prompt in prompts]).to(device)
        features = clip.model.encode_text(ids, normalize=True)  # (K, E)
        found.append(F.normalize(features.mean(dim=0), dim=0))
    return torch.stack(found)
