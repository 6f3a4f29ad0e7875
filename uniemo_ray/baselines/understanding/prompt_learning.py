"""CoOp and CoCoOp: learned context vectors in front of, around or behind the class's name; CLIP is frozen.

Zhou et al., "Learning to Prompt for Vision-Language Models", IJCV 2022 (CoOp), and "Conditional Prompt
Learning for Vision-Language Models", CVPR 2022 (CoCoOp).
"""

# B images, C classes, n context vectors, L tokens of the text tower, W its width, E joint embedding width

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uniemo_ray.baselines.understanding.prompts import EmbeddedTextTower, spoken
from uniemo_ray.models.clip import ClipParts

Position = Literal["end", "middle", "front"]
START_STD = 0.02
"""Standard deviation of a context that starts from no words."""


class PromptFrame(nn.Module):
    """The embedded prompts of all classes, with room for a context.

    A prompt is start, context and "name." in an order, then the end and padding.

    Args:
        clip: its token embeddings and tokenizer.
        labels: names of the C classes.
        context_length: n.
        position: where the name stands.
    """

    start: Tensor
    rest: Tensor
    order: Tensor
    ends: Tensor

    def __init__(
        self, clip: ClipParts, labels: Sequence[str], *, context_length: int, position: Position = "end"
    ) -> None:
        super().__init__()
        names = [spoken(label) for label in labels]
        room = " ".join(["x"] * context_length)  # a token for each vector
        ids = clip.tokenizer([f"{room} {name}." for name in names])  # (C, L)
        with torch.no_grad():
            embedded = clip.model.token_embedding(ids.to(clip.model.token_embedding.weight.device))
        lengths = [len(clip.tokenizer.encode(name)) for name in names]  # type: ignore[attr-defined]
        orders = [
            place_context(context_length, length, total=ids.shape[1], position=position) for length in lengths
        ]
        self.register_buffer("start", embedded[:, :1])
        self.register_buffer("rest", embedded[:, 1 + context_length :])
        self.register_buffer("order", torch.tensor(orders))
        self.register_buffer("ends", ids.argmax(dim=1))  # the end token has the highest id

    def forward(self, context: Tensor) -> Tensor:
        """Embedded prompts (..., C, L, W) around a context (..., C, n, W)."""
        lead = context.shape[:-3]
        start, rest = (part.expand(*lead, *part.shape) for part in (self.start, self.rest))
        plain = torch.cat([start, context, rest], dim=-2)  # the order of position "end"
        order = self.order.expand(*lead, *self.order.shape)[..., None].expand_as(plain)
        return plain.gather(-2, order)


def place_context(context_length: int, name_length: int, *, total: int, position: Position) -> list[int]:
    """Where each token of a prompt is taken from, of start, context, name and the rest in this order.

    Args:
        context_length: n.
        name_length: tokens of the class's name.
        total: L.
        position: `end` leaves the order as it is; `middle` has the first half of the context before the name,
            rounded down; `front` has the name before the context.
    """
    context = list(range(1, 1 + context_length))
    name = list(range(1 + context_length, 1 + context_length + name_length))
    rest = list(range(1 + context_length + name_length, total))
    before = {"end": context_length, "middle": context_length // 2, "front": 0}[position]
    return [0, *context[:before], *name, *context[before:], *rest]


class Context(nn.Module):
    """CoOp's parameters: one context for all classes, or one for each.

    Args:
        start: (n, W) or (C, n, W).
    """

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.vectors = nn.Parameter(start)

    def forward(self, classes: int) -> Tensor:
        """(C, n, W)."""
        return self.vectors.expand(classes, -1, -1)


class ConditionalContext(nn.Module):
    """CoCoOp's parameters: a context, and the meta-net whose output for an image is added to each vector.

    Args:
        start: (n, W).
        feature_width: E.
        reduction: E over the width of the hidden layer.
    """

    def __init__(self, start: Tensor, *, feature_width: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, feature_width // reduction)
        self.vectors = nn.Parameter(start)
        self.meta_net = nn.Sequential(
            nn.Linear(feature_width, hidden), nn.ReLU(), nn.Linear(hidden, start.shape[1])
        )

    def forward(self, features: Tensor) -> Tensor:
        """Context (B, n, W) of image features (B, E) of length 1."""
        shift: Tensor = self.meta_net(features)  # (B, W)
        return self.vectors + shift[:, None]


def first_context(clip: ClipParts, *, length: int, words: str | None, classes: int | None = None) -> Tensor:
    """Where a context starts: (n, W), or (C, n, W) for `classes` contexts.

    Args:
        clip: its token embeddings and tokenizer.
        length: n.
        words: whose embeddings it takes; None draws it from torch's stream.
        classes: C, of contexts that are class-specific.

    Raises:
        ValueError: words of another number of tokens.
    """
    if words is None:
        shape = (length, clip.model.ln_final.weight.shape[0])
        return torch.randn(*shape if classes is None else (classes, *shape)) * START_STD
    count = len(clip.tokenizer.encode(words))  # type: ignore[attr-defined]
    if count != length:
        raise ValueError(f"{words!r} has {count} tokens, expected {length}")
    (ids,) = clip.tokenizer([words])
    table: Tensor = clip.model.token_embedding.weight.detach()
    return table[ids[1 : 1 + length]].clone()


class _PromptedClip(nn.Module):
    """A frozen CLIP, and prompts with a learned context."""

    scale: Tensor

    def __init__(self, clip: ClipParts, frame: PromptFrame, learner: nn.Module) -> None:
        super().__init__()
        self.visual, self.text = clip.model.visual, EmbeddedTextTower(clip.model)
        self.frame, self.learner = frame, learner
        self.register_buffer("scale", clip.model.logit_scale.detach().exp())  # one over the temperature

    @property
    def classes(self) -> int:
        """C."""
        return len(self.frame.ends)

    @torch.no_grad()
    def image_directions(self, pixels: Tensor) -> Tensor:
        """Image features (B, E) of length 1."""
        return F.normalize(self.visual(pixels), dim=1)

    def text_directions(self, context: Tensor) -> Tensor:
        """Text features (..., C, E) of length 1, of a context (..., C, n, W)."""
        prompts = self.frame(context)
        flat = prompts.flatten(0, -3)
        ends = self.frame.ends.repeat(len(flat) // self.classes)
        features = self.text(flat, ends)
        return F.normalize(features, dim=1).view(*prompts.shape[:-2], -1)


class CoOp(_PromptedClip):
    """Logits by prompts that are the same for all images."""

    learner: Context

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (B, C) of pixels (B, 3, S, S)."""
        texts = self.text_directions(self.learner(self.classes))  # (C, E)
        return self.scale * self.image_directions(pixels) @ texts.T


class CoCoOp(_PromptedClip):
    """Logits by prompts that each image has of its own."""

    learner: ConditionalContext

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (B, C) of pixels (B, 3, S, S)."""
        images = self.image_directions(pixels)  # (B, E)
        context = self.learner(images)[:, None].expand(-1, self.classes, -1, -1)  # (B, C, n, W)
        texts = self.text_directions(context)  # (B, C, E)
        return self.scale * torch.einsum("be,bce->bc", images, texts)
