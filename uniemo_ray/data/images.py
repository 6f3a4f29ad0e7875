"""From encoded bytes to model input: decoding of whatever people call a picture, crops, value ranges.

Every random choice of the augmentation is a function of (seed, epoch, image id), so that a resumed
epoch sees the pictures that an undisturbed one would have seen.
"""

# B batch, H height, W width

import hashlib
import io
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from uniemo_ray.data.pixels import (
    DAMAGED,
    ON_THEIR_SIDE,
    RGB,
    ImageError,
    check_size,
    damage_named,
    tile_pixels,
    to_rgb,
    turn_of,
    upright_rgb,
)
from uniemo_ray.data.png_chunks import without_texts
from uniemo_ray.foreign_files import HEAD_BYTES, other_picture, stand_in
from uniemo_ray.text import one_line

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "FORMATS",
    "RGB",
    "Filter",
    "ImageError",
    "augmentation_seed",
    "check_picture",
    "decode_rgb",
    "normalise",
    "random_crop_flip",
    "to_square",
    "to_unit_range",
]

Filter = Literal["bilinear", "bicubic"]
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000")
"""What is opened. Others (EPS, PDF) would start foreign programs."""

_CROPPED_FIRST = 4
"""Longest side over shortest one from which the margins are cut before resizing, not after."""
_PLAIN = ("RGB", "L")
"""Modes of which every picture can be converted."""


def decode_rgb(data: bytes, max_pixels: int) -> RGB:
    """Decode to RGB as a viewer would show it (`upright_rgb`); of an animation the first frame counts.

    Args:
        data: Bytes of a file in one of `FORMATS`.
        max_pixels: Largest width x height; checked, as the ratio of the sides, before any pixel is decoded.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ImageError: with the reason, when the bytes are no usable picture.
    """
    return upright_rgb(_open(data, max_pixels))


def check_picture(data: bytes, max_pixels: int) -> tuple[int, int]:
    """Read the whole picture, keep no pixel: height and width of what `decode_rgb` returns, and its errors.

    Several times as fast. Of a JPEG every coefficient is read and checked, but turned only into a small grey
    picture: the arithmetic between the two cannot fail.
    """
    image = _open(data, max_pixels)
    with damage_named():
        whole = image.size
        is_small = image.draft("L", (max(1, whole[0] // 8), max(1, whole[1] // 8))) is not None
        image.load()
        width, height = whole if is_small else image.size  # loading may turn a TIFF file
        turn = turn_of(image)
        if image.mode not in _PLAIN:
            to_rgb(image)  # what it refuses, it refuses here too
        return (width, height) if turn in ON_THEIR_SIDE else (height, width)


def _open(data: bytes, max_pixels: int) -> Image.Image:
    if not data:
        raise ImageError("corrupt", "the file is empty")
    try:
        with warnings.catch_warnings():
            # Our own limit below speaks for Pillow's warning.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(without_texts(data)), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError("huge", one_line(error)) from error
    except DAMAGED as error:
        if not isinstance(error, UnidentifiedImageError):
            raise ImageError("corrupt", one_line(error)) from error
        raise _explain_unknown(data[:HEAD_BYTES]) from error
    check_size(image.width, image.height, max_pixels)
    with damage_named():
        in_tile = tile_pixels(image)
    if in_tile > max_pixels:
        raise ImageError("huge", f"a tile of {in_tile} pixels is more than data.max_pixels = {max_pixels}")
    return image


def _explain_unknown(head: bytes) -> ImageError:
    if found := stand_in(head):
        return ImageError("corrupt", found)
    if found := other_picture(head):
        return ImageError("unsupported", found)
    return ImageError("corrupt", f"no picture in one of the formats {', '.join(FORMATS)}")


def to_square(rgb: RGB, size_px: int, *, resize_px: int | None = None, resample: Filter = "bicubic") -> RGB:
    """Shorter side to `resize_px` (by default `size_px`), then the centre: (size_px, size_px, 3).

    As it stands by default, CLIP evaluates so.
    """
    height, width = rgb.shape[:2]
    shorter = resize_px or size_px
    if height == width == size_px == shorter:
        return rgb
    wide, high = (shorter * side // min(height, width) for side in (width, height))
    top, left = round((high - size_px) / 2), round((wide - size_px) / 2)
    image = Image.fromarray(rgb)
    if max(height, width) > _CROPPED_FIRST * min(height, width):
        # The whole would be as long as the picture: only the middle is resized, the same but for rounding.
        edges = left * width / wide, top * height / high
        ends = (left + size_px) * width / wide, (top + size_px) * height / high
        box = (*edges, min(width, ends[0]), min(height, ends[1]))
        return np.asarray(image.resize((size_px, size_px), _FILTERS[resample], box=box))
    resized = np.asarray(image.resize((wide, high), _FILTERS[resample]))
    return resized[top : top + size_px, left : left + size_px]


def augmentation_seed(seed: int, epoch: int, image_id: str) -> int:
    """The 64-bit seed of one picture's augmentation in one epoch."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{image_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def random_crop_flip(
    rgb: RGB, size_px: int, *, seed: int, crop_scale: tuple[float, float], resample: Filter = "bicubic"
) -> RGB:
    """Random resized crop and mirror, a function of the arguments alone.

    Args:
        rgb: (H, W, 3).
        size_px: Side of the result.
        seed: From `augmentation_seed`.
        crop_scale: Smallest and largest share of the area that is kept, each in (0, 1].
        resample: Filter of the resize.

    Returns:
        (size_px, size_px, 3).
    """
    rng = np.random.default_rng(seed)
    box = _draw_box(rng, height=rgb.shape[0], width=rgb.shape[1], crop_scale=crop_scale)
    size = (size_px, size_px)
    crop = np.asarray(Image.fromarray(rgb).resize(size, _FILTERS[resample], box=box))
    return np.ascontiguousarray(crop[:, ::-1]) if rng.random() < 0.5 else crop


def _draw_box(
    rng: np.random.Generator, *, height: int, width: int, crop_scale: tuple[float, float]
) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a crop with the asked area and a ratio of 3:4 to 4:3 where it fits."""
    area = height * width * rng.uniform(*crop_scale)
    ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    wide, high = math.sqrt(area * ratio), math.sqrt(area / ratio)
    if wide > width:
        wide, high = width, min(height, area / width)
    elif high > height:
        wide, high = min(width, area / height), height
    left, top = rng.uniform(0, 1) * (width - wide), rng.uniform(0, 1) * (height - high)
    return left, top, min(width, left + wide), min(height, top + high)


def normalise(batch: RGB, mean: Sequence[float], std: Sequence[float]) -> "Tensor":
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32, less `mean` and over `std` (both on the 0-1 scale)."""
    import torch  # readers of this module that only decode need not load it

    pixels = _channels_first(batch)
    shift, scale = (torch.tensor(tuple(v), dtype=torch.float32).view(1, 3, 1, 1) for v in (mean, std))
    return pixels.sub_(shift).div_(scale)


def to_unit_range(batch: RGB) -> "Tensor":
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32 in [-1, 1], as the VAE takes it."""
    return _channels_first(batch).mul_(2).sub_(1)


def _channels_first(batch: RGB) -> "Tensor":
    import torch

    if batch.ndim != 4 or batch.shape[-1] != 3 or batch.dtype != np.uint8:
        raise ValueError(f"expected uint8 pictures (B, H, W, 3), got {batch.dtype} {batch.shape}")
    # A copy: Ray's batches are read-only and torch would not notice.
    return torch.from_numpy(batch.transpose(0, 3, 1, 2).astype(np.float32)).div_(255)
