"""End and number of frames of an image file, read from the structure of the file without decoding it."""

import re
import struct

_MARKER = re.compile(rb"\xff+[^\xff]", re.DOTALL)
"""A JPEG marker, with the fill bytes before it."""
_SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
"""The marker that ends a scan: 0xFF followed by neither a stuffed zero nor a restart marker."""
_PADDING = re.compile(rb"[\0\r\n ]*")
_BOXES = frozenset(
    [*b"ftyp meta mdat moov free skip uuid jp2h jp2c jp2i uinf asoc nlst rreq".split(), b"jP  ", b"xml "]
)
"""Boxes at the top of AVIF and JPEG 2000 files."""
_MOST_JPEGS = 64
"""Most JPEG images in one file."""


def picture_end(data: bytes, kind: str) -> int:
    """Offset of the end of the image; for kinds that do not store it (BMP, TIFF), the end of the file."""
    readers = {
        "PNG": _png_end,
        "WEBP": _riff_end,
        "GIF": _gif_end,
        "JPEG": _jpeg_end,
        "AVIF": _boxes_end,
        "JPEG2000": _boxes_end,
    }
    reader = readers.get(kind)
    return len(data) if reader is None else reader(data)


def _png_end(data: bytes) -> int:
    place: int = 8
    while place + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        place += 12 + int(length)
        if name == b"IEND":
            return place
    return len(data)


def _boxes_end(data: bytes) -> int:
    """Behind the last box of a known kind; a JPEG 2000 file may also be a bare code stream without boxes."""
    if data.startswith(b"\xff\x4f\xff\x51"):
        return len(data)
    place = 0
    while place + 8 <= len(data) and data[place + 4 : place + 8] in _BOXES:
        length = int.from_bytes(data[place : place + 4])
        if length == 1:
            length = int.from_bytes(data[place + 8 : place + 16])
        if length == 0 or place + length > len(data):  # 0: as far as the file goes
            return len(data)
        place += max(8, length)
    return place


def _riff_end(data: bytes) -> int:
    length = int(struct.unpack_from("<I", data, 4)[0]) if len(data) >= 8 else 0
    return 8 + length + length % 2


def _gif_end(data: bytes) -> int:
    return _gif_walk(data, len(data))[0]


def gif_frames(data: bytes, most: int) -> int:
    """Number of frames of a GIF. Counting stops above `most`."""
    return max(1, _gif_walk(data, most)[1])


def _gif_walk(data: bytes, most_frames: int) -> tuple[int, int]:
    """End of the trailer (end of the file if the blocks are damaged), and the number of frames up to it."""
    place = 13 + _colours(data[10]) if len(data) > 10 else len(data)
    frames = 0
    while place < len(data) and frames <= most_frames:
        kind = data[place]
        if kind == 0x3B:
            return place + 1, frames
        if kind == 0x2C and place + 9 < len(data):
            frames += 1
            place = _after_blocks(data, place + 11 + _colours(data[place + 9]))
        elif kind == 0x21:
            place = _after_blocks(data, place + 2)
        else:
            break
    return len(data), frames


def tiff_frames(data: bytes, most: int) -> int:
    """Number of directories of a TIFF. Counting stops above `most`."""
    order = "<" if data[:2] == b"II" else ">"
    is_big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    number, link, entry = ("Q", "Q", 20) if is_big else ("H", "I", 12)
    first = 8 if is_big else 4
    place, frames = struct.unpack_from(f"{order}{link}", data, first)[0], 0
    while place and place + 8 <= len(data) and frames <= most:
        frames += 1
        count = struct.unpack_from(f"{order}{number}", data, place)[0]
        after = place + struct.calcsize(f"={number}") + entry * count
        if after + struct.calcsize(f"={link}") > len(data):
            break
        place = struct.unpack_from(f"{order}{link}", data, after)[0]
    return max(1, frames)


def _colours(flags: int) -> int:
    """Size of a GIF colour table in bytes."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_blocks(data: bytes, place: int) -> int:
    while place < len(data) and data[place]:
        place += 1 + data[place]
    return place + 1


def _jpeg_end(data: bytes) -> int:
    """Offset behind the end marker of the first image; the end of the file if there is no marker."""
    return _jpeg_walk(data, 0) or len(data)


def further_jpegs_end(data: bytes, place: int) -> int:
    """Offset behind the complete JPEG images that start at `place`, with padding between them."""
    for _ in range(_MOST_JPEGS):
        place = _PADDING.match(data, place).end()  # type: ignore[union-attr]  # it also matches an empty string
        end = _jpeg_walk(data, place) if data.startswith(b"\xff\xd8", place) else 0
        if not end:
            break
        place = end
    return place


def _jpeg_walk(data: bytes, start: int) -> int:
    """Offset behind the end marker of the image that starts at `start`; 0 if there is no marker."""
    place = start + 2
    while marker := _MARKER.match(data, place):
        place = marker.end()
        kind = data[place - 1]
        if kind == 0xD9:
            return place
        if place + 2 > len(data):
            break
        place += int(struct.unpack_from(">H", data, place)[0])
        if kind == 0xDA:
            scan = _SCAN_END.search(data, place)
            place = scan.start() if scan else len(data)
    return 0
