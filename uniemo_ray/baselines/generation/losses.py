"""The baselines' losses, one pure function per term."""

# B batch, A attributes, E width of meanings

import torch
from torch import Tensor
from torch.nn import functional as F


def attribute_loss(meaning: Tensor, attributes: Tensor, index: Tensor) -> Tensor:
    """EmoGen's attribute loss of each image (B,): cross-entropy over cosine similarities to all attributes.

    Args:
        meaning: (B, E) where the prompt lies.
        attributes: (A, E) where the names lie.
        index: (B,) int64, the image's attribute; -1 without one, whose loss is 0.
    """
    if not len(attributes):
        return torch.zeros(len(index), device=meaning.device)
    similarity = F.normalize(meaning.float(), dim=-1) @ F.normalize(attributes.float(), dim=-1).T
    return F.cross_entropy(similarity, index, ignore_index=-1, reduction="none")


def weighted_by_confidence(
    reconstruction: Tensor, attribute: Tensor, confidence: Tensor, *, weight: float
) -> Tensor:
    """EmoGen's loss of each image (B,): the surer an attribute speaks for the emotion, the more it counts.

    Args:
        reconstruction: (B,) diffusion losses.
        attribute: (B,) attribute losses.
        confidence: (B,) from 0 to 1.
        weight: of the attribute loss (1 in the paper; the released code has 0.01).
    """
    return (1 - confidence) * reconstruction + weight * confidence * attribute


def with_prior(own: Tensor, prior: Tensor, *, weight: float) -> Tensor:
    """DreamBooth's loss: that of the images (B,) and, weighted, that of the class images (B,), as means."""
    return own.mean() + weight * prior.mean()
