"""From a picture in any of Pillow's modes to upright RGB, and the named reasons why there is none."""

# H, W sides of the upright picture

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uniemo_ray.text import one_line

RGB = NDArray[np.uint8]

MAX_ASPECT = 100
"""Longest side over shortest one: of a thinner picture, the centre square shows less than a hundredth."""

DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    ArithmeticError,
    LookupError,
    TypeError,
    RuntimeError,
    struct.error,
    zlib.error,
)
"""What Pillow's readers are known to raise on damaged files."""

ON_THEIR_SIDE = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)
_ORIENTATION_TAG = 0x0112
_TILE_WIDTH_TAG, _TILE_HEIGHT_TAG = 0x0142, 0x0143
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WITH_ALPHA = ("RGBA", "LA", "RGBa", "PA")
_MAY_NAME_A_TRANSPARENT_COLOUR = ("1", "L", "P", "RGB")
_CHUNK_PIXELS = 1 << 18


class ImageError(ValueError):
    """A picture that cannot be used: `reason` is corrupt, truncated, huge, thin or unsupported."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse what has too many pixels or too long a side, before any pixel is touched.

    Raises:
        ImageError: huge or thin.
    """
    if width * height > max_pixels:
        raise ImageError("huge", f"{width} x {height} is more than data.max_pixels = {max_pixels}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError("thin", f"{width} x {height}: one side is more than {MAX_ASPECT} times the other")


def tile_pixels(image: Image.Image) -> int:
    """Pixels of one tile of a TIFF file, 0 for other files. A small picture can have large tiles."""
    tags = getattr(image, "tag_v2", {})
    sides = tags.get(_TILE_WIDTH_TAG, 0), tags.get(_TILE_HEIGHT_TAG, 0)
    return sides[0] * sides[1] if all(isinstance(side, int) for side in sides) else 0


@contextmanager
def damage_named() -> Iterator[None]:
    """Turn what Pillow raises on damaged files into an ImageError."""
    try:
        yield
    except ImageError:
        raise
    except DAMAGED as error:
        raise ImageError(_kind_of_damage(error), one_line(error)) from error


def upright_rgb(image: Image.Image) -> RGB:
    """The picture as a viewer would show it: (H, W, 3) uint8, however Pillow holds it.

    Grey, palette, CMYK, YCbCr, LAB, HSV and 16-bit pictures are converted, transparency lies on white and the
    EXIF orientation is applied. Colour profiles are not.

    Raises:
        ImageError: its pixels cannot be read or converted.
    """
    with damage_named():
        image.load()
        turn = turn_of(image)  # only after loading: Pillow turns TIFF files itself
        rgb = to_rgb(image)
        return np.ascontiguousarray(rgb if turn is None else rgb.transpose(turn))


def to_rgb(image: Image.Image) -> Image.Image:
    """A loaded picture in mode RGB, not yet turned.

    Raises:
        ImageError: its kind of pixels has no fixed range.
    """
    if image.mode.startswith("I"):
        return _from_16_bit(image)
    if image.mode == "F":
        raise ImageError("unsupported", "floating-point pixels have no fixed range")
    if image.mode == "La":
        return _on_white(image.convert("LA").convert("RGBA"))  # Pillow knows no shorter way
    if image.mode in _WITH_ALPHA:
        return _on_white(image.convert("RGBA"))
    if _names_a_transparent_colour(image):
        with suppress(ValueError, TypeError):  # a colour that the picture cannot have
            return _on_white(image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """What brings the picture upright, or None."""
    try:
        return _TURNS.get(_as_number(image.getexif().get(_ORIENTATION_TAG)))
    except DAMAGED:
        return None  # unreadable EXIF says nothing about the pixels, which are fine


def _as_number(value: object) -> int:
    """An orientation in any of the types that cameras and editors write it in; 1 (upright) for others."""
    if isinstance(value, tuple | list):
        return _as_number(value[0]) if value else 1
    if isinstance(value, bytes):
        content = value.strip(b"\0 ")
        return _as_number(
            content.decode("ascii", "replace") if content.isdigit() else int.from_bytes(content)
        )
    if isinstance(value, str):
        text = value.strip("\0 ")
        return int(text) if text.isascii() and text.isdigit() else 1
    number = float(value) if hasattr(value, "__float__") else 1.0
    return int(number) if number.is_integer() else 1


def _names_a_transparent_colour(image: Image.Image) -> bool:
    colour = image.info.get("transparency")
    is_there = not (isinstance(colour, int) and colour > 255)  # Pillow would take its lowest 8 bits
    return colour is not None and is_there and image.mode in _MAY_NAME_A_TRANSPARENT_COLOUR


def _on_white(overlay: Image.Image) -> Image.Image:
    white = Image.new("RGBA", overlay.size, "white")
    return Image.alpha_composite(white, overlay).convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    # Pillow's own conversion clips at 255 instead of scaling.
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError("unsupported", "grey values outside 0 to 65535")
    grey = np.empty(values.shape, np.uint8)
    source, target = values.reshape(-1), grey.reshape(-1)
    hidden = image.info.get("transparency")
    for i in range(0, len(source), _CHUNK_PIXELS):  # as a whole it would take many times the picture's size
        chunk = source[i : i + _CHUNK_PIXELS].astype(np.uint32)
        target[i : i + _CHUNK_PIXELS] = (chunk + 128) // 257
        if isinstance(hidden, int):
            target[i : i + _CHUNK_PIXELS][chunk == hidden] = 255  # white shows through
    return Image.fromarray(grey).convert("RGB")


def _kind_of_damage(error: Exception) -> str:
    text = str(error).lower()
    is_cut = any(word in text for word in ("truncated", "not enough", "end of file", "incomplete"))
    return "truncated" if is_cut or isinstance(error, EOFError) else "corrupt"
