"""Fusion of expert features into one condition (eq. 6)."""

# B batch, D encoder width, T text-embedding width, V words

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from uniemo_ray.models.encoder import Features
from uniemo_ray.models.random_start import given_or_drawn, own_stream


class ConditionFusion(nn.Module):
    """`c = offset + scale * sum_m weight_m * phi_m(feature_m)`, phi two linear layers with ReLU.

    Fresh, offset is 0 and scale 1: eq. 6 as written (`fusion.start: plain`). `start_at_words` moves the
    start to where word embeddings live. With several text encoders T is the sum of their widths: the hidden
    layer is shared, and each encoder's part of the last layer is its own output head.
    """

    offset: Tensor
    scale: Tensor

    def __init__(
        self, width: int, text_width: int | Sequence[int], members: Sequence[str], *, seed: int | None = None
    ) -> None:
        """Make one phi for each of `members`, any of cls, patch, scene, object.

        Args:
            width: D.
            text_width: T, of each text encoder.
            members: features that are fused.
            seed: of the fresh weights; None draws one from torch's own stream.
        """
        super().__init__()
        seed = given_or_drawn(seed)
        text = text_width if isinstance(text_width, int) else sum(text_width)
        self.members = tuple(members)
        self.phi = nn.ModuleDict()
        for name in self.members:
            with own_stream(seed, f"phi.{name}"):
                self.phi[name] = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, text))
        self.register_buffer("offset", torch.zeros(text))
        self.register_buffer("scale", torch.ones(text))

    @torch.no_grad()
    def start_at_words(self, word_embeddings: Tensor) -> None:
        """Let conditions start at the mean of words (V, T), V >= 2, and vary as widely as they do.

        Ours: a frozen text encoder makes sense only of inputs near the words it was trained on.

        Raises:
            ValueError: for embeddings of another width, or fewer than two.
        """
        if word_embeddings.shape[1:] != self.offset.shape or len(word_embeddings) < 2:
            width = len(self.offset)
            raise ValueError(f"expected 2 or more words of width {width}, got {tuple(word_embeddings.shape)}")
        words = word_embeddings.detach().float()
        self.offset.copy_(words.mean(dim=0))
        self.scale.copy_(words.std(dim=0))
        for phi in self.phi.values():
            nn.init.zeros_(phi[-1].bias)  # type: ignore[index]

    def forward(self, features: Features, *, scene_weight: Tensor, object_weight: Tensor) -> Tensor:
        """The fused condition c (B, T).

        Args:
            features: of B pictures, or drawn from the emotion space.
            scene_weight: (B,) alpha of the scene.
            object_weight: (B,) alpha of the object.

        Raises:
            ValueError: when a fused member is not among the features.
        """
        parts = [self._part(name, features, scene_weight, object_weight) for name in self.members]
        return self.offset + self.scale * torch.stack(parts).sum(dim=0)

    def mapped(self, member: str, feature: Tensor) -> Tensor:
        """What a member's feature (B, D) adds to c at weight 1, (B, T)."""
        found: Tensor = self.scale * self.phi[member](feature)
        return found

    def _part(self, name: str, features: Features, scene_weight: Tensor, object_weight: Tensor) -> Tensor:
        feature = features.patches.mean(dim=1) if name == "patch" else getattr(features, name)
        if feature is None:
            raise ValueError(f"fusion.members holds {name!r}, but the encoder has no queries: remove it")
        fused: Tensor = self.phi[name](feature)
        weights = {"scene": scene_weight, "object": object_weight}
        return fused * weights[name][:, None] if name in weights else fused
