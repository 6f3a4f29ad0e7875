"""Whatever a user calls a picture, as pixels."""

# H, W sides of the picture

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uniemo_ray.addresses import local_path
from uniemo_ray.config import MAX_PIXELS
from uniemo_ray.data.images import ImageError, decode_rgb
from uniemo_ray.data.pixels import check_size, upright_rgb

Picture = Image.Image | str | Path | bytes | NDArray[np.uint8] | NDArray[np.uint16]
_SHAPES = "(H, W), (H, W, 3) or (H, W, 4), or a uint16 array (H, W)"


def read_picture(picture: object, index: int) -> NDArray[np.uint8]:
    """A PIL image, path, encoded bytes or array as (H, W, 3) bytes; one picture reads alike in every form.

    Args:
        picture: what a user gave. Arrays are grey (H, W) in uint8 or uint16, RGB or RGBA in uint8.
        index: its place among others, for the message.

    Raises:
        ValueError: for something that is no usable picture, saying which.
    """
    try:
        if isinstance(picture, str | Path):
            return decode_rgb(local_path(picture).read_bytes(), MAX_PIXELS)
        if isinstance(picture, Image.Image):
            return _from_image(picture)
        if isinstance(picture, bytes | bytearray | memoryview):
            return decode_rgb(bytes(picture), MAX_PIXELS)
        if isinstance(picture, np.ndarray) and _is_picture(picture):
            return _from_image(Image.fromarray(picture))
    except (ImageError, OSError) as error:
        name = picture if isinstance(picture, str | Path) else f"image {index}"
        raise ValueError(f"{name} cannot be read: {error}") from None
    what = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
    raise ValueError(
        f"image {index}: expected a PIL image, a path, bytes or a uint8 array {_SHAPES}, got {what}"
    )


def _from_image(image: Image.Image) -> NDArray[np.uint8]:
    check_size(image.width, image.height, MAX_PIXELS)
    return upright_rgb(image)


def _is_picture(array: NDArray[np.generic]) -> bool:
    if array.size == 0:
        return False
    is_colour = array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] in (3, 4)
    return is_colour or (array.dtype in (np.uint8, np.uint16) and array.ndim == 2)
