"""Limits of requests and of waiting times. They are checked before anything is decoded or computed."""

from typing import Any

from pydantic import Field, model_validator

from uniemo_ray.renamed_settings import refuse_renamed
from uniemo_ray.service.decode_cost import MB, largest_decode_bytes
from uniemo_ray.settings_base import Settings

RETRY_AFTER_S = 2.0
"""`Retry-After` of a refused request where the time until a place is free is not known."""
BODY_COPIES = 2
"""A body lies in memory as the chunks that arrived and as a whole, or as a whole and as its parts."""
STORE = "~/.cache/uniemo_ray/generations"
"""Default folder of the generation store. It serves one machine."""


class Limits(Settings):
    """Limits of the service; `/v1/model` shows all of them."""

    body_bytes: int = Field(20_000_000, ge=1)
    """Largest body of an understand request, counted while it arrives."""
    generate_body_bytes: int = Field(65_536, ge=1)
    """Largest body of every other request. Only understand requests carry files."""
    memory_mb: int = Field(3000, ge=1)
    """Memory of one endpoint replica for bodies in flight and for decoded images, beside its models. A body
    beyond it gets 503, and images wait for their turn. Unit: MB (1,000,000 bytes)."""
    body_timeout_s: float = Field(30, gt=0)
    """Seconds in which a body must arrive."""
    images: int = Field(16, ge=1)
    """Most images of one understand request."""
    pixels: int = Field(50_000_000, ge=1)
    """Largest width x height x frames of an image. It is read from the header, which guards against
    decompression bombs."""
    frames: int = Field(64, ge=1)
    """Most frames of an animation. Only the first frame is understood."""
    names: int = Field(20, ge=1)
    """Most scenes, and most objects, that a response may list."""
    n: int = Field(8, ge=1)
    """Most images of one generate request."""
    steps: int = Field(100, ge=1)
    """Most sampling steps of an image."""
    side_px: int = Field(1024, ge=16)
    """Largest width and height of a generated image."""
    generated_pixels: int = Field(8_388_608, ge=256)
    """Largest n x width x height of one generate request."""
    guidance: float = Field(50, gt=0)
    """Largest guidance scale."""
    prompt_characters: int = Field(300, ge=2)
    """Longest prompt in characters."""
    understand_timeout_s: float = Field(60, gt=0)
    """Longest time in which an understand request is answered."""
    generate_timeout_s: float = Field(240, gt=0)
    """Longest time in which a generate request is answered. A generation may wait this long for its first
    step and then run this long."""
    active_requests: int = Field(512, ge=1)
    """Most open requests of one endpoint replica, event streams included. Further requests get 503."""
    requests_per_minute: int = Field(1200, ge=1)
    """Most requests of a token per minute and endpoint replica. Further requests get 429. A quarter of them
    may arrive at once."""
    concurrent_requests: int = Field(64, ge=1)
    """Most open requests of a token per endpoint replica, event streams included. Further ones get 429."""
    concurrent_generations: int = Field(16, ge=1)
    """Most unfinished generations of a token. Further ones get 429."""
    kept_bytes: int = Field(10_000_000_000, ge=1)
    """Most bytes of all generations that are kept on a disk, measured once in five seconds. Further
    generations get 507 until some expire or are deleted. On S3 the bucket's own quota decides."""
    kept_bytes_per_token: int = Field(2_500_000_000, ge=1)
    """Most bytes of the generations of one token that are kept on a disk, so that nobody fills it alone.
    Further generations of the token get 507. Without a token file `kept_bytes` alone counts."""
    result_ttl_s: float = Field(3600, gt=0)
    """How long a generation and its images can be fetched."""

    @model_validator(mode="after")
    def _memory_holds_a_request(self) -> "Limits":
        needed_mb = -(-(BODY_COPIES * self.body_bytes + largest_decode_bytes(self.pixels)) // MB)
        if self.memory_mb < needed_mb:
            raise ValueError(
                f"memory_mb {self.memory_mb} does not hold one body of body_bytes and one image of pixels: "
                f"set it to at least {needed_mb}, or lower body_bytes or pixels"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _no_old_names(cls, values: Any) -> Any:
        return refuse_renamed(values, {"order_bytes": "generate_body_bytes"})
