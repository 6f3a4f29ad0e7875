"""What the image tower sees of a picture: resize, crop and normalisation (`encoder.preprocess`)."""

# B batch, H height, W width, S side of the tower's input

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from uniemo_ray.data.images import (
    RGB,
    Filter,
    normalise,
    normalise_tensor,
    random_crop_flip,
    to_square,
)

if TYPE_CHECKING:
    from torch import Tensor

PreprocessName = Literal["clip", "imagenet", "half"]
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """From a decoded picture to the input of one image tower."""

    size_px: int
    """S."""
    resize_px: int
    """Shorter side before the centre crop, at least S."""
    resample: Filter
    """Filter of every resize, that of the random crop included."""
    mean: tuple[float, ...]
    """Per colour channel, 0 to 1 scale."""
    std: tuple[float, ...]
    """Per colour channel."""

    def square(self, rgb: RGB) -> RGB:
        """The whole picture (H, W, 3), shorter side resized and the centre cropped: (S, S, 3)."""
        return to_square(rgb, self.size_px, resize_px=self.resize_px, resample=self.resample)

    def random_square(self, rgb: RGB, *, seed: int, crop_scale: tuple[float, float]) -> RGB:
        """A random crop of (H, W, 3), perhaps mirrored: (S, S, 3); see `random_crop_flip`."""
        return random_crop_flip(rgb, self.size_px, seed=seed, crop_scale=crop_scale, resample=self.resample)

    def pixels(self, squares: Sequence[RGB]) -> "Tensor":
        """B squares as the tower's input (B, 3, S, S), float32."""
        return normalise(np.stack(squares), self.mean, self.std)

    def from_bytes(self, squares: "Tensor") -> "Tensor":
        """Squares (B, S, S, 3) uint8 as the tower's input, on the device where they are; as `pixels` does it.

        What is floating point already is returned as it is.
        """
        if squares.is_floating_point():
            return squares
        return normalise_tensor(squares, self.mean, self.std)


def make_preprocess(
    name: PreprocessName, *, size_px: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> Preprocess:
    """The preprocessing of a name for a CLIP of input side S.

    Args:
        name: `clip`, `imagenet` (released code's stage 1) or `half` (its stage 2).
        size_px: S.
        mean: CLIP's own, which `clip` takes.
        std: CLIP's own.
    """
    if name == "clip":
        return Preprocess(size_px=size_px, resize_px=size_px, resample="bicubic", mean=mean, std=std)
    if name == "imagenet":
        mean, std = _IMAGENET
        return Preprocess(size_px=size_px, resize_px=size_px, resample="bilinear", mean=mean, std=std)
    mean, std = _HALF
    resize_px = size_px * 8 // 7  # 256 for 224
    return Preprocess(size_px=size_px, resize_px=resize_px, resample="bilinear", mean=mean, std=std)
