"""From encoded bytes to model input: decoding of whatever people call a picture, crops, value ranges.

Every random choice of the augmentation is a function of (seed, epoch, image id), so that a resumed
epoch sees the pictures that an undisturbed one would have seen.
"""

# B batch, H height, W width

import hashlib
import io
import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

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
    "Box",
    "Filter",
    "ImageError",
    "augmentation_seed",
    "check_picture",
    "crop_square",
    "decode_rgb",
    "decode_upright",
    "draw_crop",
    "normalise",
    "normalise_tensor",
    "random_crop_flip",
    "to_square",
    "to_unit_range",
    "to_unit_range_tensor",
]

Filter = Literal["bilinear", "bicubic"]
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000")
"""What is opened. Others (EPS, PDF) would start foreign programs."""

_CROPPED_FIRST = 4
"""Longest side over shortest one from which the margins are cut before resizing, not after."""
_DIVISORS = (2, 4, 8)
"""Of a JPEG's sides, with which its pixels can be decoded directly."""
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


def decode_upright(
    data: bytes, max_pixels: int, *, reduction: Callable[[int, int], float] | None
) -> tuple[RGB, tuple[int, int]]:
    """Decode as `decode_rgb` does; a JPEG at a half, quarter or eighth of its size where that is enough.

    Args:
        data: Bytes of a file in one of `FORMATS`.
        max_pixels: As for `decode_rgb`.
        reduction: Height and width of the upright picture to the largest allowed divisor of its sides; None
            decodes it as a whole.

    Returns:
        The picture, and the (height, width) that it has as a whole.

    Raises:
        ImageError: as `decode_rgb`.
    """
    image = _open(data, max_pixels)
    if reduction is None or image.format != "JPEG":
        rgb = upright_rgb(image)
        return rgb, (rgb.shape[0], rgb.shape[1])
    with damage_named():
        width, height = image.size
        if turn_of(image) in ON_THEIR_SIDE:
            width, height = height, width
        divisor = max((size for size in _DIVISORS if size <= reduction(height, width)), default=1)
        if divisor > 1:
            image.draft(None, (max(1, image.width // divisor), max(1, image.height // divisor)))
    return upright_rgb(image), (height, width)


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
    box = draw_crop(rgb.shape[0], rgb.shape[1], seed=seed, crop_scale=crop_scale)
    return crop_square(rgb, size_px, box=box, resample=resample)


def crop_square(rgb: RGB, size_px: int, *, box: "Box", resample: Filter) -> RGB:
    """What a box shows of a picture, perhaps mirrored, as (size_px, size_px, 3)."""
    size = (size_px, size_px)
    crop = np.asarray(Image.fromarray(rgb).resize(size, _FILTERS[resample], box=box[:4]))
    return np.ascontiguousarray(crop[:, ::-1]) if box.is_mirrored else crop


class Box(NamedTuple):
    """A region of a picture, in pixels, and whether it is shown mirrored."""

    left: float
    upper: float
    right: float
    lower: float
    is_mirrored: bool

    def moved(self, whole: tuple[int, int], to: tuple[int, int]) -> "Box":
        """The same region of the picture, not at the (height, width) `whole` but at another one."""
        high, wide = to[0] / whole[0], to[1] / whole[1]
        right, lower = min(to[1], self.right * wide), min(to[0], self.lower * high)
        return Box(self.left * wide, self.upper * high, right, lower, self.is_mirrored)


def draw_crop(height: int, width: int, *, seed: int, crop_scale: tuple[float, float]) -> Box:
    """A random crop with the asked area and a ratio of 3:4 to 4:3 where it fits; see `random_crop_flip`."""
    rng = np.random.default_rng(seed)
    area = height * width * rng.uniform(*crop_scale)
    ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    wide, high = math.sqrt(area * ratio), math.sqrt(area / ratio)
    if wide > width:
        wide, high = width, min(height, area / width)
    elif high > height:
        wide, high = min(width, area / height), height
    left, top = rng.uniform(0, 1) * (width - wide), rng.uniform(0, 1) * (height - high)
    return Box(left, top, min(width, left + wide), min(height, top + high), bool(rng.random() < 0.5))


def normalise(batch: RGB, mean: Sequence[float], std: Sequence[float]) -> "Tensor":
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32, less `mean` and over `std` (both on the 0-1 scale)."""
    return normalise_tensor(_as_tensor(batch), mean, std)


def normalise_tensor(batch: "Tensor", mean: Sequence[float], std: Sequence[float]) -> "Tensor":
    """`normalise` of a uint8 tensor, on its device."""
    import torch  # readers of this module that only decode need not load it

    pixels = _channels_first(batch)
    shift, scale = (torch.tensor(tuple(v), dtype=torch.float32).view(1, 3, 1, 1) for v in (mean, std))
    return pixels.sub_(shift.to(pixels.device)).div_(scale.to(pixels.device))


def to_unit_range(batch: RGB) -> "Tensor":
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32 in [-1, 1], as the VAE takes it."""
    return to_unit_range_tensor(_as_tensor(batch))


def to_unit_range_tensor(batch: "Tensor") -> "Tensor":
    """`to_unit_range` of a uint8 tensor, on its device; what is floating point already stays as it is."""
    return batch if batch.is_floating_point() else _channels_first(batch).mul_(2).sub_(1)


def _as_tensor(batch: RGB) -> "Tensor":
    import torch

    if batch.ndim != 4 or batch.shape[-1] != 3 or batch.dtype != np.uint8:
        raise ValueError(f"expected uint8 pictures (B, H, W, 3), got {batch.dtype} {batch.shape}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Ray's batches are read-only; nobody writes to this
        return torch.from_numpy(batch)


def _channels_first(batch: "Tensor") -> "Tensor":
    import torch

    return batch.permute(0, 3, 1, 2).to(torch.float32).div_(255)
