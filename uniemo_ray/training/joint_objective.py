"""What stage 2 minimises: stage 1's losses, and those of the condition and of the diffusion model."""

# B batch, U image side in pixels

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from uniemo_ray.config import LossConfig
from uniemo_ray.data.images import to_unit_range_tensor
from uniemo_ray.data.preprocess import Preprocess
from uniemo_ray.losses import classification_loss, condition_loss, joint_loss
from uniemo_ray.models.heads import AttributeHeads
from uniemo_ray.models.uniemo import UniEmoNet
from uniemo_ray.training.chunks import Embeddings, Whole
from uniemo_ray.training.objectives import UnderstandingObjective

if TYPE_CHECKING:
    from uniemo_ray.models.diffusion import DiffusionParts


class JointObjective(nn.Module):
    """Stage 2: L_joint of eq. 10; the diffusion loss reaches the encoder through the condition.

    Args:
        net: The network.
        diffusion: Frozen parts; not registered, so that they are neither partitioned nor saved. Only a
            denoiser that trains is registered.
        losses: Weights and variants.
        prompt: Prompt of every image, with the placeholder that takes the condition.
        missing: As for stage 1.
        heads: As for stage 1.
        preprocess: As for stage 1.
    """

    def __init__(
        self,
        net: UniEmoNet,
        diffusion: "DiffusionParts",
        losses: LossConfig,
        *,
        prompt: str,
        missing: Tensor | None = None,
        heads: AttributeHeads | None = None,
        preprocess: Preprocess | None = None,
    ) -> None:
        super().__init__()
        self.understanding = UnderstandingObjective(
            net, losses, missing=missing, heads=heads, preprocess=preprocess
        )
        self._losses, self._prompt = losses, prompt
        self._diffusion = (diffusion,)  # a tuple keeps frozen modules out of this module's parameters
        if any(parameter.requires_grad for parameter in diffusion.denoiser.parameters()):
            self.denoiser = diffusion.denoiser

    def forward(
        self, batch: Mapping[str, Tensor], whole: Whole | None = None, *, embeds: bool = False
    ) -> dict[str, Tensor] | Embeddings:
        """Losses and accuracies of a batch, or what is contrasted of it.

        Args:
            batch: As for stage 1, and `latents` (B, 4, h, w) or `unit_pixels`, (B, U, U, 3) uint8 or
                (B, 3, U, U) in [-1, 1].
            whole: As for stage 1.
            embeds: As for stage 1.

        Returns:
            As stage 1 (with `understanding_loss`), and `condition_loss` (eq. 7), `diffusion_loss` (eq. 8),
            `condition_accuracy`; `loss` is eq. 10. With `condition: both` also `condition_cross_entropy`.
        """
        if embeds:
            return self.understanding.embed(batch)
        values, said = self.understanding.understand(batch, whole)
        net, (diffusion,) = self.understanding.net, self._diffusion
        emotion = batch["emotion"]
        condition = net.condition(said.features, emotion).vector
        logits = net.condition_logits(condition)
        states = diffusion.text_states([self._prompt] * len(emotion), condition.float())
        terms = {
            "understanding": values["loss"],
            "condition": condition_loss(
                self._losses.condition,
                logits,
                emotion,
                understanding_logits=said.logits,
                margin=self._losses.margin,
                distance_of=self._losses.distance_of,
            ),
            "diffusion": diffusion.denoise_loss(self._latents(batch), states).mean(),
        }
        is_both = self._losses.condition == "both"
        cross_entropy = classification_loss(logits, emotion) if is_both else None
        return values | {
            "loss": joint_loss(**terms, config=self._losses, cross_entropy=cross_entropy),
            "understanding_loss": terms["understanding"],
            "condition_loss": terms["condition"],
            "diffusion_loss": terms["diffusion"],
            "condition_accuracy": (logits.argmax(dim=1) == emotion).float().mean(),
            **({} if cross_entropy is None else {"condition_cross_entropy": cross_entropy}),
        }

    def label_counts(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As stage 1."""
        return self.understanding.label_counts(batch)

    def is_contrasted(self) -> bool:
        """As stage 1."""
        return self.understanding.is_contrasted()

    def contrast(
        self,
        kind: str,
        queries: Tensor,
        attributes: Tensor,
        temperature: Tensor | float,
        rows: Sequence[int] | None,
    ) -> Tensor:
        """As stage 1."""
        return self.understanding.contrast(kind, queries, attributes, temperature, rows)

    def _latents(self, batch: Mapping[str, Tensor]) -> Tensor:
        if "latents" in batch:
            return batch["latents"]
        return self._diffusion[0].encode_images(to_unit_range_tensor(batch["unit_pixels"]))
