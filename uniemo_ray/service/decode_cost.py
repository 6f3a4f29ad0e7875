"""How much memory decoding an image takes, told from its header."""

MB = 1_000_000
_PER_PIXEL = {"JPEG": 20, "WEBP": 32}
_PER_PIXEL_OF_OTHERS = 24
_MOST_PER_PIXEL = 32
"""Peak bytes of decoding, conversion to RGB, turning and scaling. Measured over all modes: JPEG 18 (CMYK),
WebP 28 (animated, with transparency), others 20 (with transparency)."""
_FIXED = 4 * MB
"""Buffers that do not depend on the number of pixels."""
_PER_TEXT, _MOST_TEXTS = 2**20, 64
"""Pillow unpacks at most 1 MiB of text from a block, and 64 MiB from a file."""


def decode_bytes(kind: str, pixels: int, *, texts: int = 0) -> int:
    """Most bytes that decoding an image takes.

    Args:
        kind: format, as Pillow names it.
        pixels: width x height of the image or, if that is more, of a tile.
        texts: number of blocks with packed text.
    """
    per_pixel = _PER_PIXEL.get(kind, _PER_PIXEL_OF_OTHERS)
    return _FIXED + per_pixel * pixels + _PER_TEXT * min(texts, _MOST_TEXTS)


def largest_decode_bytes(pixels: int) -> int:
    """Most bytes that decoding any image with this number of pixels takes."""
    return _FIXED + _MOST_PER_PIXEL * pixels + _PER_TEXT * _MOST_TEXTS
