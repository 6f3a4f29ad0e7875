"""The named models of a replica."""

from pydantic import Field

from uniemo_ray import UniEmo, __version__
from uniemo_ray.config import PLACEHOLDER, Settings
from uniemo_ray.inference.model_folder import ModelParts
from uniemo_ray.inference.model_source import describe_model
from uniemo_ray.service.backend import DEFAULT_MODEL, ModelDescription
from uniemo_ray.service.settings import Limits
from uniemo_ray.service.workers.image_generator import ImageGenerator
from uniemo_ray.service.workers.understander import Understander


class ModelRegistry(Settings):
    """Which models there are and how they run."""

    models: dict[str, str]
    """Name to model folder, local or `s3://`; `default` is there."""
    understand_micro_batch: int = Field(1, ge=1)
    """Images per pass of understanding: 1 is best on a CPU."""
    generate_micro_batch: int = Field(1, ge=1)
    """Images per pass of the sampler; part of what determines an image's bytes."""
    threads: int = Field(1, ge=1)
    """CPU threads of a replica; likewise."""
    device: str = "cpu"
    """Torch device."""
    max_pixels: int = Field(Limits().pixels, ge=1)
    """Largest width x height of an image to understand."""
    names: int = Field(Limits().names, ge=1)
    """How many scenes and objects to list."""

    def load(self, name: str, *, with_diffusion: bool = True) -> UniEmo:
        """The model of a name, whole or for understanding. Raises ValueError for a folder that is none."""
        return UniEmo.from_pretrained(self.models[name], device=self.device, with_diffusion=with_diffusion)

    def check_others(self) -> None:
        """Look at the models that are loaded when they are asked for.

        Raises:
            ValueError: the folder of a name is missing or none of a model, by its two JSON files.
        """
        for name, folder in self.models.items():
            if name != DEFAULT_MODEL:
                describe_model(folder)

    def understander(self, model: UniEmo) -> Understander:
        """A loaded model, for understanding."""
        return Understander(
            model,
            micro_batch=self.understand_micro_batch,
            max_pixels=self.max_pixels,
            names=self.names,
            threads=self.threads,
        )

    def image_generator(self, model: UniEmo) -> ImageGenerator:
        """A loaded model, for generation."""
        return ImageGenerator(model, micro_batch=self.generate_micro_batch, threads=self.threads)


def describe(image_generator: ImageGenerator) -> ModelDescription:
    """A loaded model as `/v1/model` shows it; one that only understands can paint nothing."""
    model, parts = image_generator.model, image_generator.model.parts
    diffusion, can_paint = parts.config.diffusion, parts.diffusion is not None
    return ModelDescription(
        fingerprint=parts.fingerprint,
        card=parts.card,
        emotions=parts.labels.labels,
        paintable=_seen(parts) if can_paint else (),
        defaults={
            "steps": diffusion.steps,
            "guidance": diffusion.guidance,
            "width": diffusion.size_px,
            "height": diffusion.size_px,
            "prompt": diffusion.prompt.replace(PLACEHOLDER, "{}"),
        },
        pixels_multiple=model.painter.pixels_per_latent if can_paint else 1,
        micro_batch=image_generator.micro_batch,
        uniemo_ray=__version__,
    )


def _seen(parts: ModelParts) -> tuple[str, ...]:
    """Emotions of which the model has seen images."""
    names = zip(parts.labels.labels, parts.space.counts, strict=True)
    return tuple(name for name, count in names if count)
