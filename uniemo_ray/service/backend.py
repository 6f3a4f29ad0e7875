"""The interface between the HTTP API and the models. It imports neither Ray nor an HTTP library."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from uniemo_ray.emotions import Valence
from uniemo_ray.inference.requests import Mix
from uniemo_ray.inference.uniemo import UnderstandResult

Format = Literal["png", "webp", "jpeg"]
DEFAULT_MODEL = "default"


class ImageInput(NamedTuple):
    """One image to understand."""

    data: bytes
    """The encoded file. It was inspected, but not decoded yet."""
    with_attention: bool
    model: str
    """Name of the model."""
    decode_bytes: int = 0
    """Most bytes of memory that decoding takes."""


class ImageOutput(NamedTuple):
    """What a model found in one image."""

    result: UnderstandResult
    width: int
    """Width of the upright image in pixels."""
    height: int
    """Height of the upright image in pixels."""
    model: str
    """Fingerprint of the model."""
    batch: int
    """Number of images in the same batch."""


@dataclass(frozen=True)
class GenerationParams:
    """Images to generate; equal parameters give equal bytes."""

    model: str
    """Name of the model."""
    emotions: Mapping[str, float]
    """Weight of each emotion. The weights are not normalised."""
    prompt: str | None
    """Text with `{}` in place of the emotion; None stands for the prompt of training."""
    n: int
    """Number of images."""
    seed: int
    """Seed of the first image; image i has seed + i."""
    steps: int | None
    """Sampling steps; None stands for the value of training."""
    guidance: float | None
    """Guidance scale; None stands for the value of training."""
    width: int | None
    """Width in pixels; None stands for the value of training."""
    height: int | None
    """Height in pixels; None stands for the value of training."""
    mix: Mix
    """Where the emotions of a mixture are combined."""
    format: Format
    """File format of the images."""


class EncodedImage(NamedTuple):
    """A generated image as a file."""

    data: bytes
    """The file; it contains its provenance."""
    provenance: dict[str, Any]
    batch: int
    """Number of images in the same batch."""


class Refusal(NamedTuple):
    """Why there is no result. It is a value, because Ray changes exceptions between processes."""

    detail: str
    """The reason, in words for the caller."""
    field: str | None = None
    """The part of the request that is at fault."""
    is_server_error: bool = False
    """Whether the service failed (5xx) and not the request (4xx)."""
    retry_after_s: float | None = None
    """Seconds after which the same request may succeed (503)."""


@dataclass(frozen=True)
class ModelDescription:
    """A model as `/v1/model` shows it."""

    fingerprint: str
    card: str
    """The model card, in Markdown."""
    emotions: tuple[str, ...]
    """Every emotion of the model, in order."""
    paintable: tuple[str, ...]
    """The emotions that the model can generate. A model that only understands has none."""
    defaults: Mapping[str, Any]
    """Steps, guidance, width, height and prompt of a request that does not name them."""
    pixels_multiple: int
    """Width and height of generated images must be multiples of it."""
    micro_batch: int
    """Images per pass of the sampler. Like threads and versions, it affects the bytes of images."""
    uniemo_ray: str
    """Version of the package."""
    trained_on: str = ""
    """What kind of pictures the model has seen in training; empty if its card does not say."""
    scenes: tuple[str, ...] = ()
    """The scenes that the model can name."""
    objects: tuple[str, ...] = ()
    """The objects that the model can name."""
    valences: Mapping[str, Valence] = field(default_factory=dict)
    """Valence of every emotion that has one."""


class UnavailableError(Exception):
    """No replica can take the work now."""

    def __init__(self, detail: str, *, retry_after_s: float) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class Backend(Protocol):
    """Answers the requests of the HTTP API."""

    async def is_ready(self) -> bool:
        """Whether the models for both kinds of work are loaded. A busy model is ready."""

    async def describe(self, model: str) -> ModelDescription:
        """Describe the model of a name."""

    async def understand(self, images: Sequence[ImageInput]) -> list[ImageOutput | Refusal]:
        """Understand images; returns one result per image, in order. Raises UnavailableError."""

    async def generate(self, params: GenerationParams) -> list[EncodedImage] | Refusal:
        """Generate all images. Cancelling the call stops the model. Raises UnavailableError."""

    async def start(self, generation_id: str, params: GenerationParams) -> "asyncio.Task[None]":
        """Start a generation; the returned task ends when the generation does. Raises UnavailableError."""

    async def close(self) -> None:
        """Finish the generations that were started, or record that they failed, before the process ends."""
