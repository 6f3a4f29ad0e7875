"""Inspection of an uploaded file before it is decoded: its type, its size and that it is only an image."""

import io
import re
import struct
import warnings

from PIL import Image

from uniemo_ray.data.images import FORMATS
from uniemo_ray.data.png_chunks import without_texts
from uniemo_ray.foreign_files import HEAD_BYTES, other_picture, stand_in
from uniemo_ray.service.api.file_structure import further_jpegs_end, gif_frames, picture_end, tiff_frames
from uniemo_ray.service.api.problems import ProblemError
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
    "image/x-ms-bmp": "image/bmp",
    "image/apng": "image/png",
    "image/jpx": "image/jp2",
    "image/j2c": "image/jp2",
}
_VAGUE = ("", "application/octet-stream", "image/*", "multipart/form-data")
_SCRIPT = re.compile(rb"<(?:\?php|script|!doctype html)", re.IGNORECASE)
_ARCHIVE_END = b"PK\x05\x06"
_ARCHIVE_END_BYTES = 22


def inspect(data: bytes, *, media_type: str, limits: Limits, field: str) -> None:
    """Check an uploaded file.

    Args:
        data: the file.
        media_type: the media type that the sender declared; empty for none.
        limits: limits of pixels and frames.
        field: the part of the request that holds the file, for the problem.

    Raises:
        ProblemError: the file is not an image, has another media type than declared, is too large, or is
                also a file of another kind.
    """
    if not data:
        raise ProblemError(422, "the file is empty: send an image", field=field)
    kind, pixels, frames = _header(data, limits.frames, field)
    declared = media_type.partition(";")[0].strip().lower()
    declared = _ALIASES.get(declared, declared)
    if declared not in _VAGUE and declared != MEDIA_TYPES[kind]:
        raise ProblemError(
            422, f"the file was sent as {declared[:60]} but is {MEDIA_TYPES[kind]}", field=field
        )
    if frames > limits.frames:
        raise ProblemError(422, f"the file has more than {limits.frames} frames", field=field)
    if pixels * frames > limits.pixels:
        raise ProblemError(422, f"the image has more than {limits.pixels} pixels", field=field)
    if _is_polyglot(data, kind):
        raise ProblemError(422, "the file holds more than an image", field=field)


def _header(data: bytes, most_frames: int, field: str) -> tuple[str, int, int]:
    """Format, width x height and number of frames, read without decoding."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `limits.pixels` decides
            with Image.open(io.BytesIO(without_texts(data)), formats=FORMATS) as image:
                kind, pixels = str(image.format), image.width * image.height
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
    return (
        ("JPEG", pixels, 1) if kind == "MPO" else (kind, pixels, frames)
    )  # an MPO file is a JPEG with further images behind it


def _is_polyglot(data: bytes, kind: str) -> bool:
    """Whether another program could read the file as something else."""
    # PDF readers search the start of a file. Some formats do not store their end, so all of it is searched.
    start = data if kind in ("BMP", "TIFF", "JPEG2000") else data[:1024]
    if b"%PDF-" in start or _SCRIPT.search(data) or _is_archive(data):
        return True
    end = picture_end(data, kind)
    if kind == "JPEG":
        end = further_jpegs_end(data, end)  # cameras append further images
    return bool(data[end:].strip(b"\0\r\n "))


def _is_archive(data: bytes) -> bool:
    """Whether the file ends with a ZIP directory, which is where ZIP readers look for one."""
    place = max(0, len(data) - _ARCHIVE_END_BYTES - 65535)
    while (place := data.find(_ARCHIVE_END, place)) >= 0 and place + _ARCHIVE_END_BYTES <= len(data):
        comment = struct.unpack_from("<H", data, place + 20)[0]
        if place + _ARCHIVE_END_BYTES + comment <= len(data):
            return True
        place += 1
    return False
