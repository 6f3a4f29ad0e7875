"""The models of a service, by name."""

from pydantic import Field

from uniemo_ray import UniEmo, __version__
from uniemo_ray.config import PLACEHOLDER
from uniemo_ray.inference.model_folder import ModelParts
from uniemo_ray.inference.model_source import describe_model
from uniemo_ray.service.backend import DEFAULT_MODEL, ModelDescription
from uniemo_ray.service.settings import Limits
from uniemo_ray.service.workers.image_generator import ImageGenerator
from uniemo_ray.service.workers.knowledge import trained_on
from uniemo_ray.service.workers.understander import Understander
from uniemo_ray.settings_base import Settings


class ModelRegistry(Settings):
    """Which models a replica can load, and how it runs them."""

    models: dict[str, str]
    """Model folder by name, local or `s3://`. The name `default` is among them."""
    understand_micro_batch: int = Field(1, ge=1)
    """Images per pass of understanding. 1 is fastest on a CPU."""
    generate_micro_batch: int = Field(1, ge=1)
    """Images per pass of the sampler. It affects the bytes of images."""
    threads: int = Field(1, ge=1)
    """CPU threads of a replica. They affect the bytes of images."""
    device: str = "cpu"
    """Torch device."""
    max_pixels: int = Field(Limits().pixels, ge=1)
    """Largest width x height of an image to understand."""
    names: int = Field(Limits().names, ge=1)
    """Scenes, and objects, to list per image."""

    def load(self, name: str, *, with_diffusion: bool = True) -> UniEmo:
        """Load a model, whole or for understanding. Raises ValueError if its folder is not a model."""
        return UniEmo.from_pretrained(self.models[name], device=self.device, with_diffusion=with_diffusion)

    def check_others(self) -> None:
        """Check the folders of the models that are loaded on their first request.

        Raises:
            ValueError: a folder is missing, or its two JSON files are not those of a model.
        """
        for name, folder in self.models.items():
            if name != DEFAULT_MODEL:
                describe_model(folder)

    def emotions(self) -> tuple[str, ...]:
        """The emotions of all models together, those of the default model first.

        Raises:
            ValueError: a folder is missing here, or its two JSON files are not those of a model.
        """
        names = [DEFAULT_MODEL, *(name for name in self.models if name != DEFAULT_MODEL)]
        spaces = [describe_model(self.models[name])[0] for name in names]
        return tuple(dict.fromkeys(label for space in spaces for label in space.labels))

    def understander(self, model: UniEmo) -> Understander:
        """Wrap a loaded model for understanding."""
        return Understander(
            model,
            micro_batch=self.understand_micro_batch,
            max_pixels=self.max_pixels,
            names=self.names,
            threads=self.threads,
        )

    def image_generator(self, model: UniEmo) -> ImageGenerator:
        """Wrap a loaded model for generation."""
        return ImageGenerator(model, micro_batch=self.generate_micro_batch, threads=self.threads)


def describe(image_generator: ImageGenerator) -> ModelDescription:
    """Describe a loaded model for `/v1/model`. A model that only understands can generate no emotion."""
    model, parts = image_generator.model, image_generator.model.parts
    diffusion, can_generate = parts.config.diffusion, parts.diffusion is not None
    return ModelDescription(
        fingerprint=parts.fingerprint,
        card=parts.card,
        emotions=parts.labels.labels,
        valences=parts.labels.valences,
        paintable=_trained_emotions(parts) if can_generate else (),
        defaults={
            "steps": diffusion.steps,
            "guidance": diffusion.guidance,
            "width": diffusion.size_px,
            "height": diffusion.size_px,
            "prompt": diffusion.prompt.replace(PLACEHOLDER, "{}"),
        },
        pixels_multiple=model.painter.pixels_per_latent if can_generate else 1,
        micro_batch=image_generator.micro_batch,
        uniemo_ray=__version__,
        trained_on=trained_on(parts.card),
        scenes=tuple(parts.net.scenes.names),
        objects=tuple(parts.net.objects.names),
    )


def _trained_emotions(parts: ModelParts) -> tuple[str, ...]:
    """The emotions for which training had images."""
    names = zip(parts.labels.labels, parts.space.counts, strict=True)
    return tuple(name for name, count in names if count)
