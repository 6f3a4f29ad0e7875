"""Learnt word embeddings that stand for a label in a prompt, and how they reach the painter.

A word of n vectors is written as n placeholders in a row: `a photo of <emotion><emotion>`.
"""

# B batch, C labels, n vectors of a word, T text width, V words of the vocabulary

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from uniemo_ray.config import PLACEHOLDER
from uniemo_ray.inference.painter import Painter
from uniemo_ray.inference.requests import Attributes
from uniemo_ray.models.diffusion import DiffusionParts


class LabelTokens(nn.Module):
    """The new rows of an embedding table, n for each label; nothing else of a text encoder trains."""

    def __init__(self, start: Tensor) -> None:
        """Start from embeddings (C, n, T), which are copied."""
        super().__init__()
        self.vectors = nn.Parameter(start.detach().clone())

    def forward(self, label: Tensor) -> Tensor:
        """Embeddings (B, n, T) of labels (B,)."""
        return self.vectors[label]


class Conditions(Protocol):
    """What the placeholders of a label's prompt mean."""

    def draw(self, label: str, seed: int) -> Tensor:
        """Embeddings (n, T) for one image."""
        ...


@dataclass(frozen=True, eq=False)
class LearntWords:
    """The same embeddings for every image of a label."""

    labels: tuple[str, ...]
    vectors: Tensor
    """(C, n, T)."""

    def draw(self, label: str, seed: int) -> Tensor:
        """Embeddings (n, T); the seed has no effect.

        Raises:
            ValueError: a label that was not learnt.
        """
        if label not in self.labels:
            raise ValueError(f"no word was learnt for {label!r}, only for {', '.join(self.labels)}")
        return self.vectors[self.labels.index(label)]


class ConditionPainter(Painter):
    """A painter whose conditions come from a baseline instead of UniEmo's network."""

    def __init__(self, diffusion: DiffusionParts, conditions: Conditions, *, device: str = "cpu") -> None:
        super().__init__(diffusion, device=device)
        self.conditions = conditions

    def _fuse(self, emotion: str, seed: int) -> tuple[Tensor, Attributes]:
        nothing = Attributes(emotion, scene=None, scene_weight=0.0, object=None, object_weight=0.0)
        return self.conditions.draw(emotion, seed).float().cpu(), nothing


def written(template: str, vectors: int) -> str:
    """A template with a word of so many vectors in place of each `{}`."""
    return template.replace("{}", PLACEHOLDER * vectors)


def at_words(diffusion: DiffusionParts, words: Sequence[str], *, vectors: int) -> Tensor:
    """Embeddings (C, n, T) that all start from one word for each label."""
    return diffusion.embed_words(words)[:, None].repeat(1, vectors, 1)


def at_random_words(diffusion: DiffusionParts, labels: int, *, vectors: int, seed: int) -> Tensor:
    """Embeddings (C, n, T) of words that are drawn from the vocabulary (Lester et al., 2021)."""
    table = diffusion.word_embeddings
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(table), (labels, vectors), generator=generator)
    return table[drawn.to(table.device)]
