"""What the HTTP interface asks of the models; no Ray and no HTTP in here."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from uniemo_ray.inference.requests import Mix
from uniemo_ray.inference.uniemo import UnderstandResult

Format = Literal["png", "webp", "jpeg"]
DEFAULT_MODEL = "default"


class ImageInput(NamedTuple):
    """One image to understand."""

    data: bytes
    """Encoded, inspected, not yet decoded."""
    with_attention: bool
    model: str


class ImageOutput(NamedTuple):
    """What a model saw in one image."""

    result: UnderstandResult
    width: int
    """Pixels of the upright image."""
    height: int
    model: str
    """Fingerprint of the model."""
    batch: int
    """Images that were understood together."""


@dataclass(frozen=True)
class GenerationParams:
    """Images to generate; equal orders give equal bytes."""

    model: str
    emotions: Mapping[str, float]
    """Weights, not normalised."""
    prompt: str | None
    """`{}` stands for the emotion; None is the prompt of training."""
    n: int
    seed: int
    """Of the first image."""
    steps: int | None
    """None here and below: as in training."""
    guidance: float | None
    width: int | None
    height: int | None
    mix: Mix
    format: Format


class EncodedImage(NamedTuple):
    """A generated image."""

    data: bytes
    """Encoded, with its provenance inside."""
    provenance: dict[str, Any]
    batch: int
    """Images that were painted together."""


class Refusal(NamedTuple):
    """Why there is no result, in words for the caller; a value, because exceptions change on their way."""

    detail: str
    field: str | None = None
    is_ours: bool = False
    """Whether the service failed (5xx) and not the request (4xx)."""


@dataclass(frozen=True)
class ModelDescription:
    """A model as `/v1/model` shows it."""

    fingerprint: str
    card: str
    emotions: tuple[str, ...]
    """All it knows, in params."""
    paintable: tuple[str, ...]
    """Those it has seen images of and can generate; none for a model that only understands."""
    defaults: Mapping[str, Any]
    """Steps, guidance, width, height, prompt where a request is silent."""
    pixels_multiple: int
    """Sides of generated images are multiples of it."""
    micro_batch: int
    """Images per pass of the sampler; with threads and versions part of what determines bytes."""
    uniemo_ray: str
    """Version of the package."""


class UnavailableError(Exception):
    """No replica can take the work now."""

    def __init__(self, detail: str, *, retry_after_s: float) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class Backend(Protocol):
    """What answers the requests."""

    async def is_ready(self) -> bool:
        """Whether the models for both kinds of work are there; busy ones are."""

    async def describe(self, model: str) -> ModelDescription:
        """The model behind a name."""

    async def understand(self, images: Sequence[ImageInput]) -> list[ImageOutput | Refusal]:
        """One result per image, in params. Raises UnavailableError."""

    async def generate(self, params: GenerationParams) -> list[EncodedImage] | Refusal:
        """All images of an order; being cancelled frees the model. Raises UnavailableError."""

    async def start(self, generation_id: str, params: GenerationParams) -> "asyncio.Task[None]":
        """Start a generation; the returned task ends when the generation does. Raises UnavailableError."""

    async def close(self) -> None:
        """The process ends: generations that were begun finish, or the store says that they will not."""
