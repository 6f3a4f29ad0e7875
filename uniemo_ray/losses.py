"""The losses, one pure function per term."""

# B batch, C emotions, E joint embedding width

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from uniemo_ray.config import LossConfig

IGNORED = -100
"""Target of a row that has no positive."""


def info_nce(
    queries: Tensor,
    names: Tensor,
    attribute: Tensor,
    *,
    temperature: float | Tensor,
    same_attribute_negatives: bool = False,
    is_symmetric: bool = False,
    missing: Literal["left_out", "negative"] = "left_out",
) -> Tensor:
    """Contrast pooled queries with the names of their attributes (eq. 4).

    Args:
        queries: (B, E) of all images that are contrasted, L2-normalised.
        names: (B, E) text embedding of each image's attribute, L2-normalised.
        attribute: (B,) int64 index of it, -1 without attribute.
        temperature: tau > 0.
        same_attribute_negatives: whether images that share an attribute repel each other (paper).
        is_symmetric: average with the direction from names to queries (released code).
        missing: what images without attribute do: nothing on either side, or they stay negatives of the
            others, with their query and their row of `names` (released code).

    Returns:
        A scalar, computed in fp32 also under autocast; 0, still connected to `queries`, when fewer than two
        images take part or none has an attribute.
    """
    has_attribute = attribute >= 0
    is_left = has_attribute if missing == "left_out" else torch.ones_like(has_attribute)
    with torch.autocast(queries.device.type, enabled=False):
        logits = queries.float() @ names.float().T / temperature
    place = torch.arange(len(attribute), device=logits.device)
    if not same_attribute_negatives:
        same = attribute[:, None] == attribute[None, :]
        logits = logits.masked_fill(same & (place[:, None] != place[None, :]), -torch.inf)
    loss = _pick_own(logits, has_attribute, is_left)
    return (loss + _pick_own(logits.T, has_attribute, is_left)) / 2 if is_symmetric else loss


def _pick_own(logits: Tensor, has_attribute: Tensor, is_left: Tensor) -> Tensor:
    """Mean cross-entropy of row i with column i, over rows with an attribute, among columns that are left.

    Sizes depend on no value: counting rows first would make the CPU wait for the GPU.
    """
    place = torch.arange(len(logits), device=logits.device)
    masked = logits.masked_fill(~is_left[None, :], -torch.inf)
    masked = masked.masked_fill(~has_attribute[:, None], 0.0)  # no row of -inf alone: its gradient is NaN
    return _mean_over(masked, place.masked_fill(~has_attribute, IGNORED))


def _mean_over(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy over the rows whose target is not `IGNORED`; 0, still connected, without any."""
    total = F.cross_entropy(logits, target, ignore_index=IGNORED, reduction="sum")
    return total / (target != IGNORED).sum().clamp(min=1)


def classification_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Mean cross-entropy of logits (B, C) and int64 labels (B,)."""
    return F.cross_entropy(logits.float(), label)


def scene_head_loss(logits: Tensor, scene: Tensor) -> Tensor:
    """Mean cross-entropy of logits (B, A) over the images that have a scene; `scene` (B,) is -1 elsewhere."""
    return _mean_over(logits.float(), scene.masked_fill(scene < 0, IGNORED))


def object_head_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross-entropy of logits (B, A) over the images that have objects; labels (B, A) 0 or 1."""
    has_objects = labels.any(dim=1)
    each = F.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="none").mean(dim=1)
    return (each * has_objects).sum() / has_objects.sum().clamp(min=1)


def condition_loss(
    kind: Literal["none", "cross_entropy", "triplet", "both"],
    logits: Tensor,
    label: Tensor,
    *,
    understanding_logits: Tensor,
    margin: float,
    distance_of: Literal["probabilities", "logits"] = "probabilities",
) -> Tensor:
    """Emotional condition loss on the condition head's logits (B, C) (eq. 7) or its alternatives.

    Args:
        kind: `triplet` (paper), also the first of `both`; `cross_entropy`; `none`, which is 0 but stays
            connected to `logits`.
        logits: (B, C) of the head on c.
        label: (B,) int64.
        understanding_logits: (B, C), choose the negative: no gradient flows into them.
        margin: least gap of cosine distances wanted.
        distance_of: whether softmax precedes the distances (paper) or not (released code).
    """
    if kind == "none":
        return logits.sum() * 0.0
    if kind == "cross_entropy":
        return classification_loss(logits, label)
    values = logits.float() if distance_of == "logits" else logits.float().softmax(dim=1)
    negative = hard_negative(understanding_logits, label)
    near, far = _distance_to_class(values, label), _distance_to_class(values, negative)
    return (near - far + margin).clamp(min=0).mean()


def hard_negative(logits: Tensor, label: Tensor) -> Tensor:
    """The most likely wrong emotion (B,): the arg max if that is wrong, else the second best."""
    return logits.detach().scatter(1, label[:, None], -torch.inf).argmax(dim=1)


def _distance_to_class(values: Tensor, index: Tensor) -> Tensor:
    """Cosine distance (B,) of values (B, C) to one-hot vectors."""
    length: Tensor = torch.linalg.vector_norm(values, dim=1)
    return 1 - values.gather(1, index[:, None])[:, 0] / length


def understanding_loss(
    *, scene: Tensor, object: Tensor, classification: Tensor, config: LossConfig
) -> Tensor:
    """Weighted sum of the understanding terms (eq. 9)."""
    return config.scene_weight * scene + config.object_weight * object + config.class_weight * classification


def joint_loss(
    *,
    understanding: Tensor,
    condition: Tensor,
    diffusion: Tensor,
    config: LossConfig,
    cross_entropy: Tensor | None = None,
) -> Tensor:
    """Weighted sum of the joint stage's terms (eq. 10); `cross_entropy` is that of `condition: both`."""
    loss = (
        config.understanding_weight * understanding
        + config.condition_weight * condition
        + config.diffusion_weight * diffusion
    )
    return loss if cross_entropy is None else loss + config.cross_entropy_weight * cross_entropy
