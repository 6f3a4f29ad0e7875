"""What the two stages minimise, as modules whose `forward` turns a batch into named scalars.

DeepSpeed wraps an objective, so that everything trained runs inside one `forward` (ZeRO-3 gathers
parameters there).
"""

# B batch, S image side in pixels, G images of all ranks

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from uniemo_ray.config import LossConfig
from uniemo_ray.losses import (
    classification_loss,
    condition_loss,
    info_nce,
    joint_loss,
    understanding_loss,
)
from uniemo_ray.models.attributes import AttributeBase
from uniemo_ray.models.uniemo import Understanding, UniEmoNet
from uniemo_ray.training.gather import gather_batch

if TYPE_CHECKING:
    from uniemo_ray.models.diffusion import DiffusionParts


class UnderstandingObjective(nn.Module):
    """Stage 1: L_U of eq. 9.

    Args:
        net: The network; registered, so it trains.
        losses: Weights and variants.
    """

    def __init__(self, net: UniEmoNet, losses: LossConfig) -> None:
        super().__init__()
        self.net = net
        self._losses = losses

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses and accuracy of a batch.

        Args:
            batch: `pixels` (B, 3, S, S), `emotion`, `scene` and `object` (B,) int64, -1 without attribute.

        Returns:
            `loss`, `scene_loss`, `object_loss` (eq. 4, over all ranks), `class_loss`, `accuracy` (top-1).
        """
        return self.understand(batch)[0]

    def understand(self, batch: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Understanding]:
        """The values of `forward`, and what the network said."""
        said = self.net(batch["pixels"])
        temperature = self.net.temperatures()
        terms = {
            "scene": self._contrast(said.scene_embedding, self.net.scenes, batch["scene"], temperature.scene),
            "object": self._contrast(
                said.object_embedding, self.net.objects, batch["object"], temperature.object
            ),
            "classification": classification_loss(said.logits, batch["emotion"]),
        }
        values = {
            "loss": understanding_loss(**terms, config=self._losses),
            "scene_loss": terms["scene"],
            "object_loss": terms["object"],
            "class_loss": terms["classification"],
            "accuracy": (said.logits.argmax(dim=1) == batch["emotion"]).float().mean(),
        }
        return values, said

    def _contrast(
        self, embedding: Tensor | None, base: AttributeBase, attribute: Tensor, temperature: Tensor | float
    ) -> Tensor:
        """InfoNCE over the batches of all ranks (eq. 4); 0 without queries or without attributes."""
        if embedding is None or not base.names:
            return torch.zeros((), device=attribute.device)
        attributes = gather_batch(attribute)  # (G,)
        return info_nce(
            gather_batch(embedding.float()),
            base.embeddings[attributes.clamp(min=0)],
            attributes,
            temperature=temperature,
            same_attribute_negatives=self._losses.same_attribute_negatives,
            is_symmetric=self._losses.is_symmetric,
        )


class JointObjective(nn.Module):
    """Stage 2: L_joint of eq. 10; the diffusion loss reaches the encoder through the condition.

    Args:
        net: The network.
        diffusion: Frozen parts; not registered, so that they are neither partitioned nor saved. Only a
            denoiser that trains is registered.
        losses: Weights and variants.
        prompt: Prompt of every image, with the placeholder that takes the condition.
    """

    def __init__(
        self, net: UniEmoNet, diffusion: "DiffusionParts", losses: LossConfig, *, prompt: str
    ) -> None:
        super().__init__()
        self.understanding = UnderstandingObjective(net, losses)
        self._losses, self._prompt = losses, prompt
        self._diffusion = (diffusion,)  # a tuple keeps frozen modules out of this module's parameters
        if any(parameter.requires_grad for parameter in diffusion.denoiser.parameters()):
            self.denoiser = diffusion.denoiser

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses and accuracies of a batch.

        Args:
            batch: As for stage 1, and `latents` (B, 4, h, w) or `unit_pixels` (B, 3, U, U) in [-1, 1].

        Returns:
            As stage 1 (with `understanding_loss`), and `condition_loss` (eq. 7), `diffusion_loss` (eq. 8),
            `condition_accuracy`; `loss` is eq. 10.
        """
        values, said = self.understanding.understand(batch)
        net, (diffusion,) = self.understanding.net, self._diffusion
        emotion = batch["emotion"]
        condition = net.condition(said.features, emotion).vector
        logits = net.condition_head(condition)
        states = diffusion.text_states([self._prompt] * len(emotion), condition.float())
        terms = {
            "understanding": values["loss"],
            "condition": condition_loss(
                self._losses.condition,
                logits,
                emotion,
                understanding_logits=said.logits,
                margin=self._losses.margin,
            ),
            "diffusion": diffusion.denoise_loss(self._latents(batch), states).mean(),
        }
        return values | {
            "loss": joint_loss(**terms, config=self._losses),
            "understanding_loss": terms["understanding"],
            "condition_loss": terms["condition"],
            "diffusion_loss": terms["diffusion"],
            "condition_accuracy": (logits.argmax(dim=1) == emotion).float().mean(),
        }

    def _latents(self, batch: Mapping[str, Tensor]) -> Tensor:
        if "latents" in batch:
            return batch["latents"]
        return self._diffusion[0].encode_images(batch["unit_pixels"])
