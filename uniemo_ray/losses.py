"""The losses, one pure function per term."""

# B batch, C emotions, E joint embedding width

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from uniemo_ray.config import LossConfig


def info_nce(
    queries: Tensor,
    names: Tensor,
    attribute: Tensor,
    *,
    temperature: float | Tensor,
    same_attribute_negatives: bool = False,
    is_symmetric: bool = False,
) -> Tensor:
    """Contrast pooled queries with the names of their attributes (eq. 4).

    Args:
        queries: (B, E) of the global batch, L2-normalised.
        names: (B, E) text embedding of each image's attribute, L2-normalised.
        attribute: (B,) int64 index of it; -1 leaves an image out of both sides.
        temperature: tau > 0.
        same_attribute_negatives: whether images that share an attribute repel each other (paper).
        is_symmetric: average with the direction from names to queries (released code).

    Returns:
        A scalar, computed in fp32 also under autocast; 0, still connected to `queries`, when fewer than two
        images take part.
    """
    rows = (attribute >= 0).nonzero()[:, 0]
    if len(rows) < 2:
        return queries.sum() * 0.0
    with torch.autocast(queries.device.type, enabled=False):
        logits = queries[rows].float() @ names[rows].float().T / temperature
    target = torch.arange(len(rows), device=logits.device)
    if not same_attribute_negatives:
        same = attribute[rows][:, None] == attribute[rows][None, :]
        logits = logits.masked_fill(same & (target[:, None] != target[None, :]), -torch.inf)
    loss = F.cross_entropy(logits, target)
    return (loss + F.cross_entropy(logits.T, target)) / 2 if is_symmetric else loss


def classification_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Mean cross-entropy of logits (B, C) and int64 labels (B,)."""
    return F.cross_entropy(logits.float(), label)


def condition_loss(
    kind: Literal["none", "cross_entropy", "triplet"],
    logits: Tensor,
    label: Tensor,
    *,
    understanding_logits: Tensor,
    margin: float,
) -> Tensor:
    """Emotional condition loss on the condition head's logits (B, C) (eq. 7) or its alternatives.

    Args:
        kind: `triplet` (paper); `cross_entropy`; `none`, which is 0 but stays connected to `logits`.
        logits: (B, C) of the head on c.
        label: (B,) int64.
        understanding_logits: (B, C), choose the negative: no gradient flows into them.
        margin: least gap of cosine distances wanted.
    """
    if kind == "none":
        return logits.sum() * 0.0
    if kind == "cross_entropy":
        return classification_loss(logits, label)
    probability = logits.float().softmax(dim=1)
    negative = hard_negative(understanding_logits, label)
    near, far = _distance_to_class(probability, label), _distance_to_class(probability, negative)
    return (near - far + margin).clamp(min=0).mean()


def hard_negative(logits: Tensor, label: Tensor) -> Tensor:
    """The most likely wrong emotion (B,): the arg max if that is wrong, else the second best."""
    return logits.detach().scatter(1, label[:, None], -torch.inf).argmax(dim=1)


def _distance_to_class(probability: Tensor, index: Tensor) -> Tensor:
    """Cosine distance (B,) of probabilities (B, C) to one-hot vectors."""
    length: Tensor = torch.linalg.vector_norm(probability, dim=1)
    return 1 - probability.gather(1, index[:, None])[:, 0] / length


def understanding_loss(
    *, scene: Tensor, object: Tensor, classification: Tensor, config: LossConfig
) -> Tensor:
    """Weighted sum of the understanding terms (eq. 9)."""
    return config.scene_weight * scene + config.object_weight * object + config.class_weight * classification


def joint_loss(*, understanding: Tensor, condition: Tensor, diffusion: Tensor, config: LossConfig) -> Tensor:
    """Weighted sum of the joint stage's terms (eq. 10)."""
    return (
        config.understanding_weight * understanding
        + config.condition_weight * condition
        + config.diffusion_weight * diffusion
    )
