"""DreamBooth (Ruiz et al., 2023): the denoiser learns each label, and class images keep what it knew.

The recipe is diffusers': the whole UNet trains, its text encoder as an option. All labels share one network.
"""

# B batch, K class images of a label, c, h, w latent

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from uniemo_ray.baselines.generation.batches import LatentBatches
from uniemo_ray.baselines.generation.losses import with_prior
from uniemo_ray.baselines.generation.prompts import named
from uniemo_ray.baselines.generation.stage import BaselineStage
from uniemo_ray.data.readers import label_space
from uniemo_ray.models.conditioning import TextStates
from uniemo_ray.models.diffusion import DiffusionParts
from uniemo_ray.models.uniemo import decay_groups
from uniemo_ray.seeds import hash_seed
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import read_shards
from uniemo_ray.training.batches import Batch, Raw, decode_latents
from uniemo_ray.training.parts import StageParts

PRIOR_FOLDER = "prior"
"""Folder of the class images' latents in their step's artefacts."""


class DreamBoothObjective(nn.Module):
    """The diffusion loss of the images, and that of class images of the same label.

    Args:
        diffusion: Its denoiser trains, and its text encoder where it requires a gradient.
        own: Prompt of each label's images.
        classes: Prompt of each label's class images.
        weight: Of the class images' loss.
    """

    def __init__(
        self, diffusion: DiffusionParts, own: Sequence[str], classes: Sequence[str], *, weight: float
    ) -> None:
        super().__init__()
        self._diffusion = (diffusion,)
        self._own, self._classes, self._weight = tuple(own), tuple(classes), weight
        self.denoiser = diffusion.denoiser
        self.has_text = any(p.requires_grad for p in diffusion.text_encoder.parameters())
        if self.has_text:
            self.text_encoder = diffusion.text_encoder

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses of a batch.

        Args:
            batch: `latents` (B, c, h, w), `emotion` (B,) int64, and with prior preservation `class_latents`
                (B, c, h, w) of the same labels.

        Returns:
            `loss`; with prior preservation also `instance_loss` and `prior_loss`, its parts.
        """
        (diffusion,) = self._diffusion
        labels = batch["emotion"].tolist()
        prompts, latents = [self._own[label] for label in labels], batch["latents"]
        if "class_latents" not in batch:
            return {"loss": diffusion.denoise_loss(latents, self._states(prompts)).mean()}
        prompts += [self._classes[label] for label in labels]
        both = torch.cat([latents, batch["class_latents"]])
        own, prior = diffusion.denoise_loss(both, self._states(prompts)).chunk(2)
        loss = with_prior(own, prior, weight=self._weight)
        return {"loss": loss, "instance_loss": own.mean(), "prior_loss": prior.mean()}

    def _states(self, prompts: list[str]) -> TextStates:
        (diffusion,) = self._diffusion
        with torch.set_grad_enabled(self.has_text and torch.is_grad_enabled()):
            return diffusion.text_states(prompts)


@dataclass(frozen=True, kw_only=True, eq=False)
class PriorBatches:
    """Latents of images, each with that of a class image of its label, which each epoch draws."""

    latents: LatentBatches
    classes: tuple[Tensor, ...]
    """Of each label (K, c, h, w) float16."""

    def __call__(self, raw: Raw, *, epoch: int, is_training: bool) -> Batch:
        """As `LatentBatches`, and `class_latents` (B, c, h, w) float32.

        Raises:
            ValueError: an unknown label.
        """
        found = self.latents(raw, epoch=epoch, is_training=is_training)
        labels = found.tensors["emotion"].tolist()
        drawn = [
            self.classes[label][self._number(name, epoch, len(self.classes[label]))]
            for name, label in zip(found.image_ids, labels, strict=True)
        ]
        return Batch(found.tensors | {"class_latents": torch.stack(drawn).float()}, found.image_ids)

    def _number(self, image_id: str, epoch: int, count: int) -> int:
        return hash_seed(self.latents.seed, "class image", epoch, image_id) % count


def read_prior(uri: str, labels: Sequence[str]) -> tuple[Tensor, ...]:
    """Latents (K, c, h, w) float16 of each label's class images, which a step has left in a folder.

    Raises:
        ValueError: a label without class images.
    """
    table = read_shards(open_store(uri), f"{PRIOR_FOLDER}/", columns=["emotion", "latent"])
    emotions = table["emotion"].to_pylist()
    found = []
    for label in labels:
        rows = [row for row, emotion in enumerate(emotions) if emotion == label]
        if not rows:
            raise ValueError(f"{uri} holds no class image of {label!r}: remove the folder and submit again")
        found.append(decode_latents(table["latent"].take(rows).to_pylist()).half())
    return tuple(found)


def build_dreambooth(settings: BaselineStage, diffusion: DiffusionParts, device: str) -> StageParts:
    """Objective, parameter groups and batches of a fine-tuned denoiser."""
    config, own = settings.config, settings.config.generation_baselines.dreambooth
    space = label_space(config.data)
    exports: dict[str, nn.Module] = {"denoiser": diffusion.denoiser.requires_grad_(True)}
    if own.train_text_encoder:
        exports["text_encoder"] = diffusion.text_encoder.requires_grad_(True)
        if own.gradient_checkpointing:
            diffusion.text_encoder.gradient_checkpointing_enable()  # type: ignore[no-untyped-call]
    prompts = {
        name: list(named(dict.fromkeys(space.labels, prompt)).values())
        for name, prompt in (("own", own.instance_prompt), ("classes", own.class_prompt))
    }
    objective = DreamBoothObjective(diffusion, **prompts, weight=own.prior_weight)
    groups: list[dict[str, object]] = []
    for name, module in exports.items():
        trained = list(module.parameters())
        groups += decay_groups(name, trained, rate=own.lr, weight_decay=own.weight_decay)
    latents = LatentBatches(space=space, seed=config.seed)
    if settings.prior is None:
        return StageParts(objective, groups, latents, exports)
    batches = PriorBatches(latents=latents, classes=read_prior(settings.prior, space.labels))
    return StageParts(objective, groups, batches, exports)
