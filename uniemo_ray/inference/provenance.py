"""Where an image comes from, written into the file itself: PNG text, XMP in JPEG and WebP."""

# H, W sides of the picture

import hashlib
import io
import json
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

from uniemo_ray.config import PNG_LEVEL
from uniemo_ray.devices import describe_device
from uniemo_ray.inference.xmp import from_xmp, to_xmp

PREFIX = "uniemo:"
"""Prefix of our text chunks; other programs' chunks are left alone when reading."""
_LIBRARIES = ("torch", "diffusers", "transformers", "open_clip_torch", "numpy", "pillow")


def library_versions(processor: str = "cpu", rendering: Mapping[str, Any] | None = None) -> str:
    """What decides an image's bytes beside its row, as canonical JSON.

    Args:
        processor: type of a torch device; of a GPU, its model, driver and arithmetic are named as well.
        rendering: settings that are not the default, by name.
    """
    named = _installed() | {"processor": processor}
    return canonical_json(named | describe_device(processor) | dict(rendering or {}))


@cache
def _installed() -> dict[str, str]:
    from uniemo_ray import __version__

    return {"uniemo_ray": __version__} | {name: version(name) for name in _LIBRARIES}


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces, so that equal values are equal strings."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def sha256_hex(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


class GeneratedImage(PngImageFile):
    """A PIL image that keeps its provenance when it is saved, which Pillow's own would drop."""

    @staticmethod
    def from_png(png: bytes) -> "GeneratedImage":
        """Open what `encode_png` wrote."""
        image = GeneratedImage(io.BytesIO(png))
        image.load()
        return image

    @property
    def provenance(self) -> dict[str, Any]:
        """Where this image comes from."""
        return read_provenance(self)

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:
        """Save as Pillow does. A PNG has the provenance and bytes of `encode_png`; other formats have XMP."""
        text = PngInfo()
        for key, value in sorted(self.info.items()):
            if isinstance(key, str) and key.startswith(PREFIX):
                text.add_itxt(key, value)
        # each format takes what it knows and ignores the rest
        ours = {"pnginfo": text, "compress_level": PNG_LEVEL, "xmp": to_xmp(self.provenance)}
        super().save(fp, format, **ours | params)


def encode_png(pixels: NDArray[np.uint8], provenance: Mapping[str, Any], *, level: int = PNG_LEVEL) -> bytes:
    """(H, W, 3) bytes as PNG with one text chunk per entry; the same input gives the same bytes.

    A file cannot hold its own hash, so the hash of the raw pixels goes in, as `pixels_sha256`.

    Args:
        pixels: the picture.
        provenance: of plain values.
        level: effort of the compression, 0 to 9.
    """
    text = PngInfo()
    entries = {**provenance, "pixels_sha256": sha256_hex(np.ascontiguousarray(pixels).tobytes())}
    for key in sorted(entries):
        text.add_itxt(PREFIX + key, canonical_json(entries[key]))
    buffer = io.BytesIO()
    Image.fromarray(pixels, mode="RGB").save(
        buffer, format="PNG", pnginfo=text, compress_level=level, optimize=False
    )
    return buffer.getvalue()


def read_provenance(image: bytes | Image.Image) -> dict[str, Any]:
    """What `encode_png` or `GeneratedImage.save` wrote; empty for a picture that is not ours."""
    opened = Image.open(io.BytesIO(image)) if isinstance(image, bytes) else image
    opened.load()  # text chunks may stand behind the pixels
    if opened.format in ("JPEG", "WEBP"):
        return from_xmp(opened.info.get("xmp", b""))
    ours = {k: v for k, v in opened.info.items() if isinstance(k, str) and k.startswith(PREFIX)}
    return {key.removeprefix(PREFIX): json.loads(value) for key, value in sorted(ours.items())}
