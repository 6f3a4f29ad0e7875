"""Squares of a picture for training, decoded no larger than they need.

A JPEG file holds its picture in a form that can be decoded at a half, a quarter or an eighth of its size for
a fraction of the time. Where every square is at least `SPARE` times smaller than the region it shows, that is
done; the resize after it still has `SPARE` times the pixels of its result.
"""

# H, W sides of the upright picture

from collections.abc import Sequence
from typing import NamedTuple

from uniemo_ray.data.images import RGB, Box, Filter, crop_square, decode_upright, draw_crop, to_square

SPARE = 2.0
"""Pixels along a side that are left for each pixel of a square, at least."""


class RandomCrop(NamedTuple):
    """A random resized crop and mirror."""

    seed: int
    """From `augmentation_seed`."""
    scale: tuple[float, float]
    """Smallest and largest share of the area that is kept."""


class View(NamedTuple):
    """What a network sees of a picture."""

    size_px: int
    """Side of the square."""
    resize_px: int
    """Shorter side of the whole picture before the centre crop; no matter for a random crop."""
    resample: Filter
    crop: RandomCrop | None
    """None shows the whole picture."""


def decode_views(data: bytes, views: Sequence[View], *, max_pixels: int, may_reduce: bool) -> list[RGB]:
    """The squares of a picture, (size_px, size_px, 3) each.

    Args:
        data: Bytes of an image file.
        views: What to show.
        max_pixels: Larger images are refused.
        may_reduce: Whether a JPEG may be decoded at a smaller size. The squares then differ a little.

    Raises:
        ImageError: with the reason, when the bytes are no usable picture.
    """

    def reduction(height: int, width: int) -> float:
        return min(_pixels_per_pixel(view, height, width) for view in views) / SPARE

    rgb, (height, width) = decode_upright(data, max_pixels, reduction=reduction if may_reduce else None)
    return [_square(rgb, view, height, width) for view in views]


def _box(crop: RandomCrop, height: int, width: int) -> Box:
    return draw_crop(height, width, seed=crop.seed, crop_scale=crop.scale)


def _pixels_per_pixel(view: View, height: int, width: int) -> float:
    """How many pixels of the whole picture, along a side, become one of the square."""
    if view.crop is None:
        return min(height, width) / view.resize_px
    box = _box(view.crop, height, width)
    return min(box.right - box.left, box.lower - box.upper) / view.size_px


def _square(rgb: RGB, view: View, height: int, width: int) -> RGB:
    if view.crop is None:
        return to_square(rgb, view.size_px, resize_px=view.resize_px, resample=view.resample)
    box = _box(view.crop, height, width)
    shape = rgb.shape[0], rgb.shape[1]
    if shape != (height, width):
        box = box.moved((height, width), shape)
    return crop_square(rgb, view.size_px, box=box, resample=view.resample)
