"""What a request may ask for and how long things may take; checked before anything is decoded or computed."""

from typing import Any

from pydantic import Field, model_validator

from uniemo_ray.config import Settings
from uniemo_ray.renamed_settings import refuse_renamed

RETRY_AFTER_S = 2.0
"""What a caller is told who finds no room; when an answer will free a place is not known."""
STORE = "~/.cache/uniemo_ray/generations"
"""Where generations are kept unless told otherwise: good for one machine."""


class Limits(Settings):
    """Bounds of the service, all of them shown by `/v1/model`."""

    body_bytes: int = Field(20_000_000, ge=1)
    """Size of an understand request's body, counted as it arrives."""
    generate_body_bytes: int = Field(65_536, ge=1)
    """The same for every request but understanding, which alone sends files."""
    body_timeout_s: float = Field(30, gt=0)
    """Time for a body to arrive."""
    images: int = Field(16, ge=1)
    """Images of one understand request."""
    pixels: int = Field(50_000_000, ge=1)
    """Width x height x frames of an image, from its header: guards against decompression bombs."""
    frames: int = Field(64, ge=1)
    """Frames of an animation (the first one counts)."""
    names: int = Field(20, ge=1)
    """Scenes and objects that an answer may list."""
    n: int = Field(8, ge=1)
    """Images of one generate request."""
    steps: int = Field(100, ge=1)
    """Sampling steps of one generation."""
    side_px: int = Field(1024, ge=16)
    """Width and height of a generated image."""
    generated_pixels: int = Field(8_388_608, ge=256)
    """n x width x height of one generate request."""
    guidance: float = Field(50, gt=0)
    """Guidance scale."""
    prompt_characters: int = Field(300, ge=2)
    """Length of a prompt."""
    understand_timeout_s: float = Field(60, gt=0)
    """Longest wait for the answer of an understand request."""
    generate_timeout_s: float = Field(240, gt=0)
    """Longest wait for the answer of a generate request, for the first step of a generation, and for its end
    after that."""
    active_requests: int = Field(512, ge=1)
    """Requests that one endpoint replica holds open, event streams included; further ones get 503."""
    requests_per_minute: int = Field(1200, ge=1)
    """Per token and endpoint replica; further ones get 429. A quarter of it may come at once."""
    concurrent_requests: int = Field(64, ge=1)
    """Per token and endpoint replica, event streams included; further ones get 429."""
    concurrent_generations: int = Field(16, ge=1)
    """Unfinished generations per token; further ones get 429."""
    result_ttl_s: float = Field(3600, gt=0)
    """How long a generation and its images can be fetched."""

    @model_validator(mode="before")
    @classmethod
    def _no_old_names(cls, values: Any) -> Any:
        return refuse_renamed(values, {"order_bytes": "generate_body_bytes"})
