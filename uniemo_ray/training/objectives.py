"""What stage 1 minimises: a module whose `forward` turns a batch into named scalars.

DeepSpeed wraps an objective, so that everything trained runs inside one `forward` (ZeRO-3 gathers
parameters there).
"""

# B batch, S image side in pixels, G images of all ranks

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from uniemo_ray.config import LossConfig
from uniemo_ray.data.preprocess import Preprocess
from uniemo_ray.losses import (
    classification_loss,
    info_nce,
    object_head_loss,
    scene_head_loss,
    understanding_loss,
)
from uniemo_ray.models.heads import AttributeHeads
from uniemo_ray.models.uniemo import Understanding, UniEmoNet
from uniemo_ray.training.chunks import Embeddings, Whole
from uniemo_ray.training.gather import gather_batch

Kind = Literal["scene", "object"]
KINDS: tuple[Kind, Kind] = ("scene", "object")


class UnderstandingObjective(nn.Module):
    """Stage 1: L_U of eq. 9.

    Args:
        net: The network; registered, so it trains.
        losses: Weights and variants.
        missing: Text embeddings (2, E) of "scene" and "object", which `missing_attribute: negative` needs.
        heads: What supervises the attributes in place of the contrast; registered, so it trains.
        preprocess: Makes squares of bytes the tower's input; None where the input comes ready.
    """

    missing: Tensor | None

    def __init__(
        self,
        net: UniEmoNet,
        losses: LossConfig,
        *,
        missing: Tensor | None = None,
        heads: AttributeHeads | None = None,
        preprocess: Preprocess | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self._preprocess = preprocess
        self.heads = heads
        self._losses = losses
        self.register_buffer("missing", missing, persistent=False)

    def forward(
        self, batch: Mapping[str, Tensor], whole: Whole | None = None, *, embeds: bool = False
    ) -> dict[str, Tensor] | Embeddings:
        """Losses and accuracy of a batch, or what is contrasted of it.

        Args:
            batch: `pixels` (B, S, S, 3) uint8, or (B, 3, S, S) ready for the tower; `emotion`, `scene` and
                `object` (B,) int64, -1 without attribute; for heads `object_labels` (B, A), 1 where the image
                has the object.
            whole: The global batch that `batch` is a part of; None if it is all of it.
            embeds: Stop at the embeddings.

        Returns:
            `loss`, `scene_loss` and `object_loss` (eq. 4, or those of the heads), `class_loss`, `accuracy`
            (top-1).
        """
        return self.embed(batch) if embeds else self.understand(batch, whole)[0]

    def understand(
        self, batch: Mapping[str, Tensor], whole: Whole | None = None
    ) -> tuple[dict[str, Tensor], Understanding]:
        """The values of `forward`, and what the network said."""
        said = self.net(self._pixels(batch["pixels"]))
        terms = {
            "scene": self._contrast("scene", said, batch, whole),
            "object": self._contrast("object", said, batch, whole),
            "classification": classification_loss(said.logits, batch["emotion"]),
        } | self._by_heads(said, batch, whole)
        values = {
            "loss": understanding_loss(**terms, config=self._losses),
            "scene_loss": terms["scene"],
            "object_loss": terms["object"],
            "class_loss": terms["classification"],
            "accuracy": (said.logits.argmax(dim=1) == batch["emotion"]).float().mean(),
        }
        return values, said

    def _pixels(self, squares: Tensor) -> Tensor:
        """What the loader hands over, as the tower's input."""
        return squares if self._preprocess is None else self._preprocess.from_bytes(squares)

    def embed(self, batch: Mapping[str, Tensor]) -> Embeddings:
        """What is contrasted of a batch."""
        said, found = self.net(self._pixels(batch["pixels"])), Embeddings({}, {})
        for kind in KINDS:
            query = self._query(kind, said)
            if query is not None:
                found.queries[kind], found.temperatures[kind] = query, self._temperature(kind)
        return found

    def label_counts(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rows that the losses of the heads average over; without heads none."""
        if self.heads is None:
            return {}
        return {
            "scene": (batch["scene"] >= 0).sum(),
            "object": batch["object_labels"].any(dim=1).sum(),
        }

    def is_contrasted(self) -> bool:
        """Whether queries are compared with names; not where heads stand in, or without attributes."""
        has_names = bool(self.net.scenes.names or self.net.objects.names)
        return self.heads is None and self.net.has_queries and has_names

    def contrast(
        self,
        kind: str,
        queries: Tensor,
        attributes: Tensor,
        temperature: Tensor | float,
        rows: Sequence[int] | None,
    ) -> Tensor:
        """InfoNCE over the batches of all ranks or of this one (eq. 4).

        Args:
            kind: `scene` or `object`.
            queries: (B, E) embeddings of this rank's rows.
            attributes: (B,) int64, -1 without attribute.
            temperature: tau > 0.
            rows: B of each rank; None when all have equally many.
        """
        base = self.net.scenes if kind == "scene" else self.net.objects
        if self._losses.contrast == "global":
            attributes, queries = gather_batch(attributes, rows), gather_batch(queries, rows)  # (G,), (G, E)
        names = base.embeddings[attributes.clamp(min=0)]
        if self.missing is not None:
            stand_in = self.missing[0 if kind == "scene" else 1]
            names = torch.where(attributes[:, None] < 0, stand_in, names)
        return info_nce(
            queries,
            names,
            attributes,
            temperature=temperature,
            same_attribute_negatives=self._losses.same_attribute_negatives,
            is_symmetric=self._losses.is_symmetric,
            missing=self._losses.missing_attribute,
        )

    def _by_heads(
        self, said: Understanding, batch: Mapping[str, Tensor], whole: Whole | None
    ) -> dict[str, Tensor]:
        """The attribute terms where heads take the place of the contrast, else nothing."""
        scene, object_ = said.features.scene, said.features.object
        if self.heads is None or scene is None or object_ is None:
            return {}
        losses = {
            "scene": scene_head_loss(self.heads.scene(scene), batch["scene"]),
            "object": object_head_loss(self.heads.object(object_), batch["object_labels"]),
        }
        return (
            losses if whole is None else {kind: loss * whole.factors[kind] for kind, loss in losses.items()}
        )

    def _contrast(
        self, kind: Kind, said: Understanding, batch: Mapping[str, Tensor], whole: Whole | None
    ) -> Tensor:
        """The contrast of one kind, as computed before if it was; 0 without queries or attributes."""
        query = self._query(kind, said)
        if query is None:
            return torch.zeros((), device=batch[kind].device)
        temperature = self._temperature(kind)
        if whole is not None and kind in whole.contrasts:
            return whole.contrasts[kind].surrogate(query, temperature)
        rows = None if whole is None else whole.rows
        return self.contrast(kind, query, batch[kind], temperature, rows)

    def _query(self, kind: Kind, said: Understanding) -> Tensor | None:
        """Embeddings (B, E) that are contrasted, if any."""
        embedding = said.scene_embedding if kind == "scene" else said.object_embedding
        base = self.net.scenes if kind == "scene" else self.net.objects
        return None if embedding is None or not base.names or self.heads is not None else embedding.float()

    def _temperature(self, kind: Kind) -> Tensor | float:
        temperatures = self.net.temperatures()
        return temperatures.scene if kind == "scene" else temperatures.object
