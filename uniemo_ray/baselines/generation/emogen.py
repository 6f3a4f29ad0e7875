"""EmoGen (Yang et al., CVPR 2024): the losses that its mapping trains by, on the run's frozen models."""

# B batch, C labels, T text width, A attributes, E width in which meanings are compared

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from uniemo_ray.baselines.generation.batches import LatentBatches
from uniemo_ray.baselines.generation.losses import attribute_loss, weighted_by_confidence
from uniemo_ray.baselines.generation.mapping import EmotionMapper, MapperShape
from uniemo_ray.baselines.generation.stage import BaselineStage
from uniemo_ray.config import PLACEHOLDER
from uniemo_ray.config.generation_baselines import EmoGenConfig
from uniemo_ray.data.images import decode_rgb
from uniemo_ray.data.preprocess import Preprocess
from uniemo_ray.data.readers import label_space
from uniemo_ray.models.clip import ClipParts, image_features, load_clip
from uniemo_ray.models.conditioning import Prompts, TextStates, encode_prompts, tokenize
from uniemo_ray.models.diffusion import DiffusionParts
from uniemo_ray.models.uniemo import decay_groups
from uniemo_ray.seeds import hash_seed
from uniemo_ray.training.batches import Batch, Raw
from uniemo_ray.training.parts import StageParts

logger = logging.getLogger(__name__)
COLUMNS = ("image_id", "image", "emotion", "scene", "objects", "latent")
"""What is read of each row."""


class PromptMeaning:
    """Text states of prompts, and where the prompts lie in a space in which attributes can be compared.

    With Stable Diffusion and the CLIP whose text tower it uses that is CLIP's joint space, as in the paper.
    With SDXL it is that of its second text encoder; with another CLIP it is the pooled output of the text
    encoder.

    Args:
        diffusion: Frozen parts.
        clip: The run's CLIP.
    """

    def __init__(self, diffusion: DiffusionParts, clip: ClipParts) -> None:
        self._diffusion = diffusion
        self.projection = None if diffusion.is_xl else joint_projection(diffusion, clip)

    @property
    def described(self) -> str:
        """Which space it is."""
        if self._diffusion.is_xl:
            return "SDXL's second text encoder"
        return "the text encoder's pooled output" if self.projection is None else "CLIP's joint space"

    def __call__(self, prompts: Sequence[str], condition: Tensor | None = None) -> tuple[TextStates, Tensor]:
        """States (B, ...) and meanings (B, E) of prompts whose placeholder means `condition` (B, T)."""
        diffusion = self._diffusion
        if condition is None:
            condition = torch.zeros(len(prompts), diffusion.text_width, device=diffusion.device)
        if diffusion.is_xl:
            states = diffusion.text_states(prompts, condition)
            assert states.pooled is not None
            return states, states.pooled
        ids, is_placeholder = tokenize(diffusion.tokenizer, list(prompts))
        tokens = Prompts(ids.to(diffusion.device), is_placeholder.to(diffusion.device))
        said = encode_prompts(diffusion.text_encoder, tokens, condition)
        pooled: Tensor = said.pooler_output
        meaning = pooled if self.projection is None else pooled @ self.projection.to(pooled)
        return TextStates(said.last_hidden_state), meaning

    @torch.no_grad()
    def of_names(self, names: Sequence[str]) -> Tensor:
        """Meanings (A, E) of attribute names, underscores read as spaces; none without names."""
        parts = [self([name.replace("_", " ")])[1] for name in names]
        return torch.cat(parts) if parts else torch.zeros(0, 1, device=self._diffusion.device)


def joint_projection(diffusion: DiffusionParts, clip: ClipParts) -> Tensor | None:
    """CLIP's text projection (T, E), if the diffusion model's text encoder is that CLIP's text tower."""
    own: Tensor = clip.model.get_parameter("token_embedding.weight")
    words = diffusion.word_embeddings
    if own.shape != words.shape or not torch.allclose(own.cpu(), words.cpu(), rtol=1e-2, atol=1e-4):
        return None
    projection = clip.model.text_projection
    matrix: Tensor = projection.weight.T if isinstance(projection, nn.Linear) else projection
    return matrix.detach()


class MappingObjective(nn.Module):
    """Reconstruction, and for images whose attribute speaks for their emotion what it means.

    Args:
        mapper: What trains.
        meaning: Reads prompts.
        diffusion: Frozen parts; not registered.
        clip: Frozen image tower; not registered.
        preprocess: Makes squares of bytes the tower's input.
        attributes: Meanings (A, E) of the names of all attributes.
        confidence: (A, C) how much an attribute speaks for each label, 0 to 1.
        weight: Weight of the attribute loss beside its confidence.
    """

    attributes: Tensor
    confidence: Tensor

    def __init__(
        self,
        mapper: EmotionMapper,
        *,
        meaning: PromptMeaning,
        diffusion: DiffusionParts,
        clip: ClipParts,
        preprocess: Preprocess,
        attributes: Tensor,
        confidence: Tensor,
        weight: float,
    ) -> None:
        super().__init__()
        self.mapper = mapper
        self._frozen = (meaning, diffusion, clip)
        self._preprocess, self._weight = preprocess, weight
        self.register_buffer("attributes", attributes, persistent=False)
        self.register_buffer("confidence", confidence, persistent=False)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses of a batch.

        Args:
            batch: `pixels` (B, S, S, 3) uint8; `latents` (B, c, h, w); `emotion` (B,) int64; `attribute` (B,)
                int64, -1 without one.

        Returns:
            `loss`, and the means of its terms over all images: `reconstruction_loss` and `attribute_loss`,
            which is 0 for an image without an attribute.
        """
        meaning, diffusion, clip = self._frozen
        with torch.no_grad():
            features = image_features(clip, self._preprocess.from_bytes(batch["pixels"]))
        condition = self.mapper(features.float()).float()
        states, said = meaning([PLACEHOLDER] * len(condition), condition)
        reconstruction = diffusion.denoise_loss(batch["latents"], states)
        attribute = attribute_loss(said, self.attributes, batch["attribute"])
        confidence = self._confidence(batch["attribute"], batch["emotion"])
        loss = weighted_by_confidence(reconstruction, attribute, confidence, weight=self._weight)
        return {
            "loss": loss.mean(),
            "reconstruction_loss": reconstruction.mean(),
            "attribute_loss": attribute.mean(),
        }

    def _confidence(self, attribute: Tensor, emotion: Tensor) -> Tensor:
        """(B,), 0 without an attribute."""
        if not len(self.confidence):
            return torch.zeros(len(attribute), device=attribute.device)
        return self.confidence[attribute.clamp(min=0), emotion] * (attribute >= 0)


@dataclass(frozen=True, kw_only=True)
class MappingBatches:
    """Latents and squares of the whole, un-augmented pictures, with one attribute of each."""

    latents: LatentBatches
    preprocess: Preprocess
    """Of the frozen image tower."""
    attributes: tuple[str, ...]
    """Names of all scenes, then of all objects."""
    scenes: int
    """How many of them are scenes."""
    max_pixels: int
    """Larger images are refused."""

    def __call__(self, raw: Raw, *, epoch: int, is_training: bool) -> Batch:
        """As `LatentBatches`, and `pixels` (B, S, S, 3) uint8 and `attribute` (B,) int64, -1 without one.

        Of several attributes each epoch draws one.

        Raises:
            ImageError: bytes that are no image.
            ValueError: an unknown label or attribute.
        """
        found = self.latents(raw, epoch=epoch, is_training=is_training)
        squares = [self.preprocess.square(decode_rgb(data, self.max_pixels)) for data in raw["image"]]
        rows = zip(found.image_ids, raw["scene"], raw["objects"], strict=True)
        attributes = [self._attribute(name, scene, objects, epoch) for name, scene, objects in rows]
        own = {"pixels": torch.from_numpy(np.stack(squares)), "attribute": torch.tensor(attributes)}
        return Batch(found.tensors | own, found.image_ids)

    def _attribute(self, image_id: str, scene: str | None, objects: Sequence[str] | None, epoch: int) -> int:
        names = [] if scene is None else [self.attributes.index(scene, 0, self.scenes)]
        names += [self.attributes.index(name, self.scenes) for name in (() if objects is None else objects)]
        if not names:
            return -1
        return names[hash_seed(self.latents.seed, "attribute", epoch, image_id) % len(names)]


def shape_of(own: EmoGenConfig) -> MapperShape:
    """Layers of the mapping by its section or a step's view of it."""
    return MapperShape(own.layers, own.hidden, own.relu, own.layer_norm, own.dropout)


def confidence_matrix(settings: BaselineStage) -> Tensor:
    """(A, C) how much each attribute speaks for each label, 0 below the threshold or where nobody knows."""
    own = settings.config.generation_baselines.emogen
    labels = label_space(settings.config.data).labels
    named = (("scene", settings.scenes), ("object", settings.objects))
    known = settings.coefficients
    rows = [known.get(kind, {}).get(name, [0.0] * len(labels)) for kind, names in named for name in names]
    matrix = torch.tensor([list(row) for row in rows]).reshape(-1, len(labels))
    return torch.where(matrix < own.threshold, 0.0, matrix)


def build_emogen(settings: BaselineStage, diffusion: DiffusionParts, device: str) -> StageParts:
    """Objective, parameter groups and batches of the mapping."""
    config, own = settings.config, settings.config.generation_baselines.emogen
    clip = load_clip(config.encoder.clip, pretrained=config.encoder.clip_pretrained)
    clip.model.to(device)
    meaning, preprocess = PromptMeaning(diffusion, clip), clip.preprocess()
    logger.info("meanings of prompts and attributes are compared by %s", meaning.described)
    names = (*settings.scenes, *settings.objects)
    mapper = EmotionMapper(int(clip.model.visual.output_dim), diffusion.text_width, shape_of(own))
    objective = MappingObjective(
        mapper,
        meaning=meaning,
        diffusion=diffusion,
        clip=clip,
        preprocess=preprocess,
        attributes=meaning.of_names(names),
        confidence=confidence_matrix(settings),
        weight=own.attribute_weight,
    )
    batches = MappingBatches(
        latents=LatentBatches(space=label_space(config.data), seed=config.seed),
        preprocess=preprocess,
        attributes=names,
        scenes=len(settings.scenes),
        max_pixels=config.data.max_pixels,
    )
    groups = decay_groups("mapper", list(mapper.parameters()), rate=own.lr, weight_decay=own.weight_decay)
    return StageParts(objective, groups, batches, {"net": mapper})
