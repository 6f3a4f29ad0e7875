"""Whatever a user calls a picture, as pixels."""

# H, W sides of the picture

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uniemo_ray.config import MAX_PIXELS
from uniemo_ray.data.images import ImageError, decode_rgb

Picture = Image.Image | str | Path | bytes | NDArray[np.uint8]


def read_picture(picture: object, index: int) -> NDArray[np.uint8]:
    """A PIL image, path, encoded bytes or uint8 array as (H, W, 3) bytes.

    Args:
        picture: what a user gave.
        index: its place among others, for the message.

    Raises:
        ValueError: for something that is no usable picture, saying which.
    """
    try:
        if isinstance(picture, str | Path):
            return decode_rgb(Path(picture).expanduser().read_bytes(), MAX_PIXELS)
        if isinstance(picture, Image.Image):
            return decode_rgb(_as_png(picture), MAX_PIXELS)
        if isinstance(picture, bytes):
            return decode_rgb(picture, MAX_PIXELS)
    except (ImageError, OSError) as error:
        name = picture if isinstance(picture, str | Path) else f"image {index}"
        raise ValueError(f"{name} cannot be read: {error}") from None
    if (
        isinstance(picture, np.ndarray)
        and picture.dtype == np.uint8
        and picture.ndim == 3
        and picture.shape[2] == 3
    ):
        return picture
    what = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
    raise ValueError(
        f"image {index}: expected a PIL image, a path, bytes or a uint8 array (H, W, 3), got {what}"
    )


def _as_png(image: Image.Image) -> bytes:
    """Encoded without loss, so that alpha, 16 bits and orientation are treated as in a file."""
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=0, exif=image.getexif())
    return buffer.getvalue()
