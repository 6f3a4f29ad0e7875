"""Inspection of an uploaded file before it is decoded: its type, size and cost, and where the image ends."""

import io
import struct
import warnings
from typing import NamedTuple

from PIL import Image

from uniemo_ray.data.images import FORMATS
from uniemo_ray.data.pixels import tile_pixels
from uniemo_ray.data.png_chunks import without_texts
from uniemo_ray.foreign_files import HEAD_BYTES, other_picture, stand_in
from uniemo_ray.service.api.file_structure import (
    Structure,
    TooManyBlocksError,
    gif_frames,
    read_structure,
    tiff_frames,
)
from uniemo_ray.service.api.problems import ProblemError
from uniemo_ray.service.decode_cost import decode_bytes
from uniemo_ray.service.settings import Limits

MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "AVIF": "image/avif",
    "JPEG2000": "image/jp2",
}
_ALIASES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-ms-bmp": "image/bmp",
    "image/x-bmp": "image/bmp",
    "image/apng": "image/png",
    "image/x-png": "image/png",
    "image/tif": "image/tiff",
    "image/x-tiff": "image/tiff",
    "image/jpx": "image/jp2",
    "image/j2c": "image/jp2",
}
VAGUE = ("", "application/octet-stream", "binary/octet-stream", "image/*", "multipart/form-data")
"""Media types that say nothing about a file."""
_DOCUMENT = b"%PDF-"
_DOCUMENT_BYTES = 1024
"""Part of a file in which readers of PDF look for its header."""


class Inspected(NamedTuple):
    """An uploaded file that may be decoded."""

    data: bytes
    """The file up to the end of the image. Phones append videos and notes, which are cut off."""
    decode_bytes: int
    """Most bytes of memory that decoding takes."""


class _Header(NamedTuple):
    kind: str
    pixels: int
    """Width x height, or those of a tile that is larger than the image."""
    frames: int


def inspect(data: bytes, *, media_type: str, limits: Limits, field: str) -> Inspected:
    """Check an uploaded file.

    Args:
        data: the file.
        media_type: the media type that the sender declared; empty for none.
        limits: limits of pixels and frames.
        field: the part of the request that holds the file, for the problem.

    Raises:
        ProblemError: the file is not an image, has another media type than declared, is too large, is made of
                too many blocks, or is also a document.
    """
    if not data:
        raise ProblemError(422, "the file is empty: send an image", field=field)
    structure = _structure(data, field)
    data = data[: structure.end]
    header = _header(data, limits.frames, field)
    declared = media_type.partition(";")[0].strip().lower()
    declared = _ALIASES.get(declared, declared)
    if declared not in VAGUE and declared != MEDIA_TYPES[header.kind]:
        detail = f"the file was sent as {declared[:60]} but is {MEDIA_TYPES[header.kind]}"
        if field:
            raise ProblemError(422, detail, field=field)
        raise ProblemError(415, f"{detail}: send the header Content-Type: {MEDIA_TYPES[header.kind]}")
    if header.frames > limits.frames:
        raise ProblemError(422, f"the file has more than {limits.frames} frames", field=field)
    if header.pixels * header.frames > limits.pixels:
        raise ProblemError(422, f"the image has more than {limits.pixels} pixels", field=field)
    if _DOCUMENT in data[:_DOCUMENT_BYTES]:
        raise ProblemError(422, "the file holds more than an image", field=field)
    return Inspected(data, decode_bytes(header.kind, header.pixels, texts=structure.texts))


def _structure(data: bytes, field: str) -> Structure:
    try:
        return read_structure(data)
    except TooManyBlocksError as error:
        raise ProblemError(422, str(error), field=field) from None
    except (struct.error, IndexError):
        return Structure(len(data), 0)  # cut within a block, which the decoder will report


def _header(data: bytes, most_frames: int, field: str) -> _Header:
    """Format, pixels and number of frames, read without decoding."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `limits.pixels` decides, and damaged tags do no harm
            with Image.open(io.BytesIO(without_texts(data)), formats=FORMATS) as image:
                kind, pixels = str(image.format), max(image.width * image.height, tile_pixels(image))
                # Pillow counts the frames of GIF and TIFF one by one, which a file can make slow
                slow = {"GIF": gif_frames, "TIFF": tiff_frames}.get(kind)
                frames = slow(data, most_frames) if slow else getattr(image, "n_frames", 1)
    except Image.DecompressionBombError:
        raise ProblemError(422, "the image has too many pixels", field=field) from None
    except Exception:  # Pillow raises many kinds of errors on damaged files
        found = stand_in(data[:HEAD_BYTES]) or other_picture(data[:HEAD_BYTES])
        names = ", ".join(FORMATS)
        what = (
            f"the file is {found}" if found else f"the file is damaged or not an image: send one of {names}"
        )
        raise ProblemError(422, what, field=field) from None
    if kind == "MPO":
        return _Header("JPEG", pixels, 1)  # a JPEG with further images behind it
    return _Header(kind, pixels, frames)
