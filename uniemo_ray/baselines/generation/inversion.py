"""Textual Inversion (Gal et al., 2023) and soft prompts: new words train, everything else is frozen."""

# B batch, C labels, n vectors of a word, T text width, c, h, w latent

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from uniemo_ray.baselines.generation.batches import LatentBatches
from uniemo_ray.baselines.generation.prompts import initial_words
from uniemo_ray.baselines.generation.stage import BaselineStage
from uniemo_ray.baselines.generation.tokens import LabelTokens, at_random_words, at_words, written
from uniemo_ray.data.readers import label_space
from uniemo_ray.models.diffusion import DiffusionParts
from uniemo_ray.models.uniemo import decay_groups
from uniemo_ray.seeds import hash_seed
from uniemo_ray.training.parts import StageParts


class TokenObjective(nn.Module):
    """The diffusion loss of Textual Inversion and of soft prompts; gradients reach the new words alone.

    Args:
        tokens: The new words, which train.
        diffusion: Frozen parts; not registered, so that they are neither partitioned nor saved.
        prompts: Templates with one placeholder for each vector.
    """

    def __init__(self, tokens: LabelTokens, diffusion: DiffusionParts, prompts: Sequence[str]) -> None:
        super().__init__()
        self.tokens = tokens
        self._prompts = tuple(prompts)
        self._diffusion = (diffusion,)  # a tuple keeps frozen modules out of this module's parameters

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Loss of a batch.

        Args:
            batch: `latents` (B, c, h, w) scaled; `emotion` and `template` (B,) int64, the label and which of
                the prompts says it.

        Returns:
            `loss`: mean squared error of the denoiser.
        """
        (diffusion,) = self._diffusion
        prompts = [self._prompts[number] for number in batch["template"].tolist()]
        states = diffusion.text_states(prompts, self.tokens(batch["emotion"]).float())
        return {"loss": diffusion.denoise_loss(batch["latents"], states).mean()}


def build_soft_prompt(settings: BaselineStage, diffusion: DiffusionParts, device: str) -> StageParts:
    """Objective, parameter groups and batches of prompts without a word of a language."""
    own, labels = settings.config.generation_baselines.soft_prompt, label_space(settings.config.data).labels
    seed = hash_seed(settings.config.seed, "soft prompt")
    start = at_random_words(diffusion, len(labels), vectors=own.vectors, seed=seed)
    return _tokens(settings, diffusion, LabelTokens(start), [written("{}", own.vectors)])


def build_textual_inversion(settings: BaselineStage, diffusion: DiffusionParts, device: str) -> StageParts:
    """Objective, parameter groups and batches of one new word for each label."""
    own = settings.config.generation_baselines.textual_inversion
    words = initial_words(own, label_space(settings.config.data).labels)
    start = at_words(diffusion, list(words.values()), vectors=own.vectors)
    prompts = [written(template, own.vectors) for template in own.templates]
    return _tokens(settings, diffusion, LabelTokens(start), prompts)


def _tokens(
    settings: BaselineStage, diffusion: DiffusionParts, tokens: LabelTokens, prompts: list[str]
) -> StageParts:
    config, own = settings.config, settings.own
    objective = TokenObjective(tokens, diffusion, prompts)
    groups = decay_groups("tokens", list(tokens.parameters()), rate=own.lr, weight_decay=own.weight_decay)
    batches = LatentBatches(space=label_space(config.data), seed=config.seed, templates=len(prompts))
    return StageParts(objective, groups, batches, {"net": tokens})
