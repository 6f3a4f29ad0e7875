"""Small files with any width and height in their headers, in every format that is opened."""

import io
import struct
import zlib

from PIL import Image

FORMATS = ("PNG", "PNG whole", "JPEG", "WEBP", "GIF", "BMP", "TIFF tile", "TIFF strip")


def make(kind: str, width: int, height: int, inner_width: int, inner_height: int) -> bytes:
    """A file that claims to be so wide and high; the inner sides are those of a tile, a strip or a frame."""
    if kind == "PNG whole" and width * height <= 4_000_000:
        return _encode(width, height, "PNG")
    if kind.startswith("PNG"):
        return _png(width, height)
    if kind == "JPEG":
        return _replaced(
            _encode(8, 8, kind), b"\xff\xc0", 5, struct.pack(">HH", height % 65536, width % 65536)
        )
    if kind == "WEBP":
        data = _encode(8, 8, kind, lossless=True)
        bits = (min(width, 16384) - 1) | (min(height, 16384) - 1) << 14
        return data[:21] + struct.pack("<I", bits) + data[25:]
    if kind == "GIF":
        data = _encode(8, 8, kind)
        frame = struct.pack("<HHHHH", 0, 0, inner_width % 65536, inner_height % 65536, 0)[:8]
        data = data[:6] + struct.pack("<HH", width % 65536, height % 65536) + data[10:]
        return _replaced(data, b"\x2c", 1, frame)
    if kind == "BMP":
        data = _encode(8, 8, kind)
        return data[:18] + struct.pack("<ii", width, height) + data[26:]
    return _tiff(width, height, inner_width, inner_height, is_tiled=kind == "TIFF tile")


def _encode(width: int, height: int, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, kind, **options)
    return buffer.getvalue()


def _replaced(data: bytes, mark: bytes, offset: int, by: bytes) -> bytes:
    place = data.rindex(mark) + offset if mark == b"\xff\xc0" else data.index(mark, 13) + offset
    return data[:place] + by + data[place + len(by) :]


def _png(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 16, 6, 0, 0, 1)
    data = _encode(8, 8, "PNG")
    return data[:8] + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def _tiff(width: int, height: int, inner_width: int, inner_height: int, *, is_tiled: bool) -> bytes:
    pixels = inner_width * inner_height if is_tiled else width * inner_height
    data = _zeros(min(pixels, 150_000_000))
    tags = [(256, width), (257, height), (258, 8), (259, 8), (262, 1)]
    if is_tiled:
        tags += [(277, 1), (322, inner_width), (323, inner_height), (324, 134), (325, len(data))]
    else:
        tags += [(273, 122), (277, 1), (278, inner_height), (279, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def _zeros(count: int) -> bytes:
    """Compressed zeros, made in pieces, because the memory of this process is measured."""
    packer = zlib.compressobj(1)
    pieces = [packer.compress(bytes(min(1 << 20, count - i))) for i in range(0, count, 1 << 20)]
    return b"".join(pieces) + packer.flush()
