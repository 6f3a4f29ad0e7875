"""A look at an uploaded file before anything is decoded: is it the picture it says, and nothing else?"""

import io
import re
import struct
import warnings

from PIL import Image

from uniemo_ray.data.images import FORMATS
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
}
_ALIASES = {"image/jpg": "image/jpeg", "image/x-ms-bmp": "image/bmp", "image/apng": "image/png"}
_VAGUE = ("", "application/octet-stream", "image/*", "multipart/form-data")
_SCRIPT = re.compile(rb"<(?:\?php|script|!doctype html)", re.IGNORECASE)
_ARCHIVE_END = b"PK\x05\x06"
_ARCHIVE_END_BYTES = 22


def inspect(data: bytes, *, media_type: str, limits: Limits, field: str) -> None:
    """Refuse what should not be decoded.

    Args:
        data: the file.
        media_type: what the sender called it; empty for nothing.
        limits: on pixels and frames.
        field: which part of the request this is, for the problem.

    Raises:
        ProblemError: it is no picture, another kind than it says, too large, or two things at once.
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
        raise ProblemError(422, f"the picture has more than {limits.pixels} pixels", field=field)
    if _is_polyglot(data, kind):
        raise ProblemError(422, "the file holds something else beside the picture", field=field)


def _header(data: bytes, most_frames: int, field: str) -> tuple[str, int, int]:
    """Kind, width x height and frames, from the file's structure alone."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limits speak for it
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                kind, pixels = str(image.format), image.width * image.height
                # Pillow counts the frames of GIF and TIFF one by one, which a file can make slow
                slow = {"GIF": gif_frames, "TIFF": tiff_frames}.get(kind)
                frames = slow(data, most_frames) if slow else getattr(image, "n_frames", 1)
    except Image.DecompressionBombError:
        raise ProblemError(422, "the picture has too many pixels", field=field) from None
    except Exception:  # damaged files make Pillow raise nearly anything
        names = ", ".join(FORMATS)
        raise ProblemError(
            422, f"the file is damaged or no picture: send one of {names}", field=field
        ) from None
    return ("JPEG", pixels, 1) if kind == "MPO" else (kind, pixels, frames)  # a JPEG with more behind it


def _is_polyglot(data: bytes, kind: str) -> bool:
    """Whether another program would take the file for something else."""
    # PDF readers look at the start; a BMP or TIFF does not say where it ends, so there all of it counts
    start = data if kind in ("BMP", "TIFF") else data[:1024]
    if b"%PDF-" in start or _SCRIPT.search(data) or _is_archive(data):
        return True
    end = picture_end(data, kind)
    if kind == "JPEG":
        end = further_jpegs_end(data, end)  # cameras put further pictures behind the first one
    return bool(data[end:].strip(b"\0\r\n "))


def _is_archive(data: bytes) -> bool:
    """Whether a ZIP directory ends where the file does, where ZIP readers look; any mark may be the real."""
    place = max(0, len(data) - _ARCHIVE_END_BYTES - 65535)
    while (place := data.find(_ARCHIVE_END, place)) >= 0 and place + _ARCHIVE_END_BYTES <= len(data):
        comment = struct.unpack_from("<H", data, place + 20)[0]
        if place + _ARCHIVE_END_BYTES + comment <= len(data):
            return True
        place += 1
    return False
