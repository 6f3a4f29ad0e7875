"""One image and its annotation: what the reader hands out, and the named reasons for handing out none."""

import hashlib
import json
import os
from collections.abc import Collection
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from uniemo_ray.data.images import ImageError, check_picture
from uniemo_ray.emotions import EMOTIONS

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".jfif", ".jpe", ".mpo"),
    *(".avif", ".jp2", ".j2k", ".jpx", ".jpf", ".apng"),
    *(".heic", ".heif", ".jxl"),  # not read, but pictures: refused one by one, with what to do
)
"""Tried in this order where a split file names an image without its file ending."""

_MAX_ANNOTATION_BYTES = 1 << 20
_MAX_NAME_BYTES = 240  # file systems allow 255; the rest is for a file ending
# 16-bit RGBA without compression, and room for metadata: no usable picture needs more.
_BYTES_PER_PIXEL, _METADATA_BYTES = 8, 1 << 24


class Reason(StrEnum):
    """Why an entry of a data set gives no sample."""

    IMAGE_MISSING = "image_missing"
    IMAGE_UNREADABLE = "image_unreadable"
    IMAGE_CORRUPT = "image_corrupt"
    IMAGE_TRUNCATED = "image_truncated"
    IMAGE_HUGE = "image_huge"
    IMAGE_THIN = "image_thin"
    IMAGE_UNSUPPORTED = "image_unsupported"
    ANNOTATION_MISSING = "annotation_missing"
    ANNOTATION_UNREADABLE = "annotation_unreadable"
    ANNOTATION_MALFORMED = "annotation_malformed"
    UNKNOWN_LABEL = "unknown_label"
    LABEL_CONFLICT = "label_conflict"
    DUPLICATE_ID = "duplicate_id"
    LIST_MALFORMED = "list_malformed"
    PATH_INVALID = "path_invalid"


class Entry(NamedTuple):
    """One image that a data set lists; both paths are relative to the data folder, with forward slashes."""

    image_id: str
    emotion: str
    """A label of the data set's label space."""
    image: str
    annotation: str | None
    """None in a data set that has no annotation files."""


class Rejected(NamedTuple):
    """An entry that gives no sample."""

    image_id: str
    path: str
    """The file at fault, relative to the data folder."""
    reason: str
    """A `Reason`; of a failure that none of them names the exception's class, or `killed 2 processes`."""
    detail: str
    """One line for a person."""
    split: str = ""


class AttributeNames(NamedTuple):
    """Scene and object names of a data set; an empty tuple means that the set does not list them."""

    scenes: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()


ANY_NAMES = AttributeNames()


class Sample(NamedTuple):
    """One usable image; the columns of `SAMPLES` but for split and source."""

    image_id: str
    image: bytes
    """The file's own bytes."""
    emotion: str
    scene: str | None
    objects: tuple[str, ...]
    sha256: str
    width: int
    """Pixels, as shown."""
    height: int
    brightness: float | None
    colorfulness: float | None


class _Annotation(NamedTuple):
    scene: str | None
    objects: tuple[str, ...]
    brightness: float | None
    colorfulness: float | None


_NO_ANNOTATION = _Annotation(None, (), None, None)


class _RefusedError(ValueError):
    def __init__(self, reason: Reason, path: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.path, self.detail = reason, path, detail


def normalise_name(name: str) -> str:
    """The one spelling of an attribute: `Polar Bear` becomes `polar_bear`."""
    return "_".join(name.lower().replace("_", " ").split())


def read_sample(
    root: Path,
    entry: Entry,
    *,
    max_pixels: int,
    names: AttributeNames = ANY_NAMES,
    labels: Collection[str] = EMOTIONS,
) -> Sample | Rejected:
    """Read, check and fully decode one image and, where it has one, its annotation.

    Args:
        root: Data folder.
        entry: What to read.
        max_pixels: Larger pictures are refused, before they are decoded.
        names: Known attributes; others are refused. Where empty, every name is taken.
        labels: Known emotions; others are refused.

    Returns:
        The sample, or why there is none.

    Raises:
        OSError: where the disk itself fails, which is no property of the sample.
    """
    try:
        _check_entry(entry, labels=labels)
        annotation = _read_annotation(root, entry, names=names)
        path = resolve_image(root, entry)
        data = _read_bytes(root, path, limit=max_pixels * _BYTES_PER_PIXEL + _METADATA_BYTES)
        height, width = _size_of(data, path, max_pixels=max_pixels)
    except _RefusedError as refusal:
        return Rejected(entry.image_id, refusal.path, refusal.reason, refusal.detail)
    digest = hashlib.sha256(data).hexdigest()
    return Sample(
        image_id=entry.image_id,
        image=data,
        emotion=entry.emotion,
        sha256=digest,
        width=width,
        height=height,
        **annotation._asdict(),
    )


def resolve_image(root: Path, entry: Entry) -> str:
    """Path of the image, with the file ending found on disk where the entry lacks one."""
    if PurePosixPath(entry.image).suffix.lower() in IMAGE_SUFFIXES:
        return entry.image
    # unlike Path.is_file, os.path.isfile takes names that are too long and folders that may not be read
    names = [entry.image + suffix for suffix in IMAGE_SUFFIXES]
    found = [name for name in names if os.path.isfile(root / name)]
    return found[0] if found else entry.image


def _check_entry(entry: Entry, *, labels: Collection[str]) -> None:
    for path in (entry.image, entry.annotation or entry.image):
        pure = PurePosixPath(path.replace("\\", "/"))
        is_name = all(len(part.encode()) <= _MAX_NAME_BYTES and "\0" not in part for part in pure.parts)
        if pure.is_absolute() or ".." in pure.parts or not is_name:
            raise _RefusedError(Reason.PATH_INVALID, path, "expected a path inside the data folder")
    if entry.emotion not in labels:
        detail = f"emotion {entry.emotion!r} of the split file is none of {', '.join(labels)}"
        raise _RefusedError(Reason.UNKNOWN_LABEL, entry.image, detail)


def _read_bytes(root: Path, path: str, *, limit: int) -> bytes:
    file = root / path
    try:
        size = file.stat().st_size
        if size > limit:
            raise _RefusedError(Reason.IMAGE_HUGE, path, f"{size} bytes; at most {limit} are read")
        return file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise _RefusedError(Reason.IMAGE_MISSING, path, "no such file") from None
    except (PermissionError, IsADirectoryError) as error:
        raise _RefusedError(Reason.IMAGE_UNREADABLE, path, error.strerror or "not readable") from error


def _size_of(data: bytes, path: str, *, max_pixels: int) -> tuple[int, int]:
    try:
        height, width = check_picture(data, max_pixels)
    except ImageError as error:
        raise _RefusedError(Reason(f"image_{error.reason}"), path, error.detail) from error
    return height, width


def _read_annotation(root: Path, entry: Entry, *, names: AttributeNames) -> _Annotation:
    if entry.annotation is None:
        return _NO_ANNOTATION
    value = _load_annotation(root / entry.annotation, entry.annotation)
    emotion = value.get("emotion")
    if emotion is not None and normalise_name(str(emotion)) != normalise_name(entry.emotion):
        detail = f"says {emotion!r}, the split file says {entry.emotion!r}"
        raise _RefusedError(Reason.LABEL_CONFLICT, entry.annotation, detail)
    scenes, objects = (_names(value, key, entry.annotation) for key in ("scene", "object"))
    if len(scenes) > 1:
        raise _malformed(entry.annotation, "scene", value["scene"], "one name")
    for kind, found, known in (("scene", scenes, names.scenes), ("object", objects, names.objects)):
        for name in found:
            if known and name not in known:
                detail = f"{kind} {name!r} is not listed in info.json"
                raise _RefusedError(Reason.UNKNOWN_LABEL, entry.annotation, detail)
    numbers = {key: _number(value.get(key)) for key in ("brightness", "colorfulness")}
    return _Annotation(scenes[0] if scenes else None, objects, **numbers)


def _load_annotation(file: Path, path: str) -> dict[str, Any]:
    try:
        if file.stat().st_size > _MAX_ANNOTATION_BYTES:
            raise _RefusedError(Reason.ANNOTATION_MALFORMED, path, f"more than {_MAX_ANNOTATION_BYTES} bytes")
        value = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise _RefusedError(Reason.ANNOTATION_MISSING, path, "no such file") from None
    except (PermissionError, IsADirectoryError) as error:
        raise _RefusedError(Reason.ANNOTATION_UNREADABLE, path, error.strerror or "not readable") from error
    except _RefusedError:
        raise
    except (ValueError, RecursionError) as error:
        raise _RefusedError(Reason.ANNOTATION_MALFORMED, path, f"no JSON: {error}") from error
    if not isinstance(value, dict):
        raise _RefusedError(
            Reason.ANNOTATION_MALFORMED, path, f"expected a JSON object, got {type(value).__name__}"
        )
    return value


def _names(value: dict[str, Any], key: str, path: str) -> tuple[str, ...]:
    """Normalised names under a key that may be missing, null, one name or a list of names."""
    raw = value.get(key)
    items = [] if raw is None else raw if isinstance(raw, list) else [raw]
    if not all(isinstance(item, str) for item in items):
        raise _malformed(path, key, raw, "a name or a list of names")
    return tuple(dict.fromkeys(name for name in map(normalise_name, items) if name))


def _number(raw: object) -> float | None:
    """A number from 0 to 1; None for anything else, because no training reads it: it costs no image."""
    if not isinstance(raw, str | int | float) or isinstance(raw, bool):
        return None
    try:
        number = float(raw)
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number <= 1 else None


def _malformed(path: str, key: str, value: Any, expected: str) -> _RefusedError:
    detail = f"{key}: expected {expected}, got {str(value)[:80]!r}"
    return _RefusedError(Reason.ANNOTATION_MALFORMED, path, detail)
