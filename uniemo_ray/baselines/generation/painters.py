"""What paints the images of a baseline, loaded in the process that paints."""

from dataclasses import dataclass

from uniemo_ray.baselines.generation.mapping import (
    EmotionClouds,
    MappedFeatures,
    MapperShape,
    mapper_of,
)
from uniemo_ray.baselines.generation.tokens import ConditionPainter, LearntWords
from uniemo_ray.config import DiffusionConfig
from uniemo_ray.inference.model_folder import Dtype
from uniemo_ray.inference.painter import Painter
from uniemo_ray.models.diffusion import DiffusionParts, load_configured
from uniemo_ray.models.speed import tune_diffusion
from uniemo_ray.training.stage import read_weights


@dataclass(frozen=True, kw_only=True)
class PlainPainter:
    """The diffusion model as it is published, a `PainterLoader`."""

    diffusion: DiffusionConfig
    fingerprint: str
    """Stands for the model in plans and images."""

    def __call__(self, *, device: str, dtype: Dtype | None) -> tuple[Painter, str]:
        """Load the diffusion model."""
        return Painter(load_for_painting(self.diffusion, dtype), device=device), self.fingerprint


@dataclass(frozen=True, kw_only=True)
class TokenPainter(PlainPainter):
    """The same with learnt words."""

    weights: str
    """File of `LabelTokens`, a local path or s3://, readable on every worker."""
    labels: tuple[str, ...]

    def __call__(self, *, device: str, dtype: Dtype | None) -> tuple[Painter, str]:
        """Load the diffusion model and the words."""
        words = LearntWords(self.labels, read_weights(self.weights)["vectors"])
        diffusion = load_for_painting(self.diffusion, dtype)
        return ConditionPainter(diffusion, words, device=device), self.fingerprint


@dataclass(frozen=True, kw_only=True)
class MapperPainter(PlainPainter):
    """The same with words that are mapped from drawn image features."""

    mapper: str
    """File of `EmotionMapper`, a local path or s3://, readable on every worker."""
    clouds: str
    """File of `EmotionClouds`."""
    shape: MapperShape
    labels: tuple[str, ...]

    def __call__(self, *, device: str, dtype: Dtype | None) -> tuple[Painter, str]:
        """Load the diffusion model, the mapping and the features' distributions."""
        mapper = mapper_of(read_weights(self.mapper), self.shape)
        clouds = EmotionClouds(**read_weights(self.clouds))
        diffusion = load_for_painting(self.diffusion, dtype)
        conditions = MappedFeatures(mapper, clouds, self.labels)
        return ConditionPainter(diffusion, conditions, device=device), self.fingerprint


@dataclass(frozen=True, kw_only=True)
class TunedPainter(PlainPainter):
    """The diffusion model with a denoiser, and perhaps a text encoder, that was fine-tuned."""

    folder: str
    """Where `denoiser.safetensors` lies, a local path or s3://, readable on every worker."""
    has_text_encoder: bool
    """Whether `text_encoder.safetensors` lies there too."""

    def __call__(self, *, device: str, dtype: Dtype | None) -> tuple[Painter, str]:
        """Load the diffusion model, and over it what was trained."""
        parts = load_configured(self.diffusion)
        trained = {"denoiser": parts.denoiser} | (
            {"text_encoder": parts.text_encoder} if self.has_text_encoder else {}
        )
        for name, module in trained.items():
            file = f"{self.folder}/{name}.safetensors"
            weights = read_weights(file)
            if other := sorted(dict(module.named_parameters()).keys() ^ weights.keys()):
                raise ValueError(f"{file} does not fit diffusion.model: {other[0]} is not in both")
            module.load_state_dict(weights, strict=False)
        return Painter(tuned_for_painting(parts, self.diffusion, dtype), device=device), self.fingerprint


def load_for_painting(diffusion: DiffusionConfig, dtype: Dtype | None) -> DiffusionParts:
    """A diffusion model whose frozen parts are kept in a number format, None for that of the settings."""
    return tuned_for_painting(load_configured(diffusion), diffusion, dtype)


def tuned_for_painting(
    parts: DiffusionParts, diffusion: DiffusionConfig, dtype: Dtype | None
) -> DiffusionParts:
    """A loaded diffusion model with the settings that change time and memory."""
    update = {} if dtype is None else {"frozen_dtype": dtype}
    return tune_diffusion(parts, diffusion.model_copy(update=update))
