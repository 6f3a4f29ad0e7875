"""What images are asked for, and what comes back; plain data that needs no diffusion library."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Mix = Literal["condition", "guidance"]


class Share(NamedTuple):
    """One emotion of a request."""

    emotion: str
    weight: float


class Request(NamedTuple):
    """What one image is made from."""

    seed: int
    prompt: str
    """`<emotion>` takes the condition; a plain request has none in it."""
    emotions: tuple[Share, ...]
    """Weights sum to 1; empty for a plain prompt."""
    mix: Mix = "condition"
    """How several emotions meet: one interpolated condition, or one guidance term each."""


class Attributes(NamedTuple):
    """What an emotion's draw from the emotion space stands for."""

    emotion: str
    scene: str | None
    scene_weight: float
    object: str | None
    object_weight: float
    drawn_from: str | None = None
    """What the features were drawn around: a component, or a training image."""

    def stated(self) -> dict[str, str | float | None]:
        """As plain values, without what a space of one Gaussian cannot say."""
        values = self._asdict()
        return values if self.drawn_from else {k: v for k, v in values.items() if k != "drawn_from"}


class Painting(NamedTuple):
    """A finished image."""

    pixels: NDArray[np.uint8]
    """(H, W, 3)."""
    attributes: tuple[Attributes, ...]
    """One per emotion of the request."""


class Failure(NamedTuple):
    """Why a request has no image."""

    reason: str


class Step(NamedTuple):
    """One denoising step of a micro-batch, for whoever watches."""

    indices: tuple[int, ...]
    """Which requests are in the micro-batch."""
    number: int
    """Finished steps, from 1."""
    of: int
    """Steps of the settings."""
    preview: Callable[[], NDArray[np.uint8]]
    """The images as they are now, (len(indices), H, W, 3); decoding them takes time."""


Watch = Callable[[Step], bool]
"""Sees every step and says whether to go on; it does not touch what is painted."""


class SamplingSettings(NamedTuple):
    """What all images of a micro-batch share, and what decides their bytes beside the seed."""

    scheduler: str
    """`unipc` or `ddim`."""
    steps: int
    """Denoising steps."""
    guidance: float
    """Classifier-free guidance scale; as in diffusers, 1 or less switches guidance off."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    micro_batch: int
    """B, the batch that runs, whatever the number of images."""
