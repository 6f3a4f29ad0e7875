"""The structure of an image file, read without decoding it: where the image ends, and how many blocks it has.

Pillow reads the blocks of a file in Python, so a file of many tiny blocks takes it long. These walks come
first and end early: they take no more steps than `most_blocks` allows.
"""

import re
import struct
from collections.abc import Callable
from typing import NamedTuple

FREE_BLOCKS = 8192
"""Blocks that a file of any size may have. A photograph has a few dozen."""
BYTES_PER_BLOCK, BYTES_PER_SUB_BLOCK = 1024, 128
"""Average size of further blocks, and of a GIF's sub-blocks, whose largest size is 255."""
MOST_SCANS = 100
"""Most scans of a JPEG: each of them visits every pixel. A progressive photograph has about ten."""
_MARKER = re.compile(rb"\xff+[^\xff]", re.DOTALL)
"""A JPEG marker, with the fill bytes before it."""
_SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
"""The marker that ends a scan: 0xFF followed by neither a stuffed zero nor a restart marker."""
_BOXES = frozenset(
    [*b"ftyp meta mdat moov free skip uuid jp2h jp2c jp2i uinf asoc nlst rreq".split(), b"jP  ", b"xml "]
)
"""Boxes at the top of AVIF and JPEG 2000 files."""
_JPEG_2000 = b"\0\0\0\x0cjP  "
_BOX_FILE = b"ftyp"
"""Kind of the first box of AVIF."""
_EXIF = b"Exif\0\0"
_TEXT_TYPES = (1, 2, 7)
"""Types of TIFF values that are kept as bytes; every value of the others becomes an object."""
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"MM*\0", b"II\0*", b"II+\0", b"MM\0+")


class TooManyBlocksError(ValueError):
    """A file is made of so many blocks that reading it would take too long."""


class Structure(NamedTuple):
    """What a walk over the blocks found."""

    end: int
    """Offset of the end of the image. For BMP and TIFF, which do not store it, the end of the file."""
    blocks: int
    """Number of blocks up to the end."""
    texts: int = 0
    """Number of blocks whose text is unpacked when the file is read."""


def most_blocks(data: bytes) -> int:
    """Most blocks that a file may have."""
    return FREE_BLOCKS + len(data) // BYTES_PER_BLOCK


def is_image(data: bytes) -> bool:
    """Whether data begins as an image whose blocks can be read."""
    return any(data.startswith(start) for start, _ in _WALKS) or data[4:8] == _BOX_FILE


def has_few_blocks(data: bytes, most: int) -> bool:
    """Whether a file has at most this many blocks."""
    try:
        read_structure(data, most)
    except (TooManyBlocksError, struct.error, IndexError):
        return False
    return True


def read_structure(data: bytes, most: int | None = None) -> Structure:
    """Walk over the blocks of a file. A file of an unknown kind has none.

    Args:
        data: the file.
        most: most blocks; None for `most_blocks`.

    Raises:
        TooManyBlocksError: there are more blocks than `most_blocks`.
    """
    most = most_blocks(data) if most is None else most
    for start, walk in _WALKS:
        if data.startswith(start):
            return walk(data, most)
    return _boxes(data, most) if data[4:8] == _BOX_FILE else Structure(len(data), 0)


def gif_frames(data: bytes, most: int) -> int:
    """Number of frames of a GIF. Counting stops above `most`."""
    return max(1, _gif_walk(data, most, most_blocks(data))[2])


def tiff_frames(data: bytes, most: int) -> int:
    """Number of directories of a TIFF. Counting stops above `most`."""
    order = "<" if data[:2] == b"II" else ">"
    number, link, entry, first = _tiff_layout(data)
    place, frames = struct.unpack_from(f"{order}{link}", data, first)[0], 0
    while place and place + 8 <= len(data) and frames <= most:
        frames += 1
        count = struct.unpack_from(f"{order}{number}", data, place)[0]
        after = place + struct.calcsize(f"={number}") + entry * count
        if after + struct.calcsize(f"={link}") > len(data):
            break
        place = struct.unpack_from(f"{order}{link}", data, after)[0]
    return max(1, frames)


def _png(data: bytes, most: int) -> Structure:
    place, blocks, texts = 8, 0, 0
    while place + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        content, place = place + 8, place + 12 + int(length)
        blocks = _counted(blocks, most)
        if name in (b"zTXt", b"iTXt"):
            texts += 1
        if name == b"eXIf":
            _check_tags(data[content : content + length], most)
        if name == b"IEND":
            return Structure(place, blocks, texts)
    return Structure(len(data), blocks, texts)


def _webp(data: bytes, most: int) -> Structure:
    length = int(struct.unpack_from("<I", data, 4)[0])
    end = min(len(data), 8 + length + length % 2)
    place, blocks = 12, 0
    while place + 8 <= end:
        name, length = struct.unpack_from("<4sI", data, place)
        blocks = _counted(blocks, most)
        if name == b"EXIF":
            _check_tags(data[place + 8 : place + 8 + length], most)
        place += 8 + length + length % 2
    return Structure(end, blocks)


def _boxes(data: bytes, most: int) -> Structure:
    """Walk over the top boxes of AVIF and JPEG 2000, up to the last one of a known kind."""
    place, blocks = 0, 0
    while place + 8 <= len(data) and data[place + 4 : place + 8] in _BOXES:
        blocks = _counted(blocks, most)
        length = int.from_bytes(data[place : place + 4])
        if length == 1:
            length = int.from_bytes(data[place + 8 : place + 16])
        if length == 0 or place + length > len(data):  # 0: as far as the file goes
            return Structure(len(data), blocks)
        place += max(8, length)
    return Structure(place, blocks)


def _gif(data: bytes, most: int) -> Structure:
    end, blocks, _ = _gif_walk(data, len(data), most)
    return Structure(end, blocks)


def _gif_walk(data: bytes, most_frames: int, most: int) -> tuple[int, int, int]:
    """End of the trailer (of the file if blocks are damaged), and numbers of blocks and frames up to it."""
    place = 13 + _colours(data[10]) if len(data) > 10 else len(data)
    blocks, frames, left = 0, 0, most + len(data) // BYTES_PER_SUB_BLOCK
    while place < len(data) and frames <= most_frames:
        kind = data[place]
        blocks = _counted(blocks, most)
        if kind == 0x3B:
            return place + 1, blocks, frames
        if kind == 0x2C and place + 9 < len(data):
            frames += 1
            place, left = _after_sub_blocks(data, place + 11 + _colours(data[place + 9]), left)
        elif kind == 0x21:
            place, left = _after_sub_blocks(data, place + 2, left)
        else:
            break
    return len(data), blocks, frames


def _colours(flags: int) -> int:
    """Size of a GIF colour table in bytes."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_sub_blocks(data: bytes, place: int, left: int) -> tuple[int, int]:
    """Offset behind a chain of sub-blocks, and how many the file may still have."""
    while place < len(data) and data[place]:
        place += 1 + data[place]
        left -= 1
        if left < 0:
            raise TooManyBlocksError("the file is made of too many tiny blocks")
    return place + 1, left


def _jpeg(data: bytes, most: int) -> Structure:
    """Walk to the end marker of the first image; cameras and phones append other images, videos and notes."""
    place, blocks, scans = 2, 0, 0
    while marker := _MARKER.match(data, place):
        place = marker.end()
        kind = data[place - 1]
        if kind == 0xD9:
            return Structure(place, blocks)
        if place + 2 > len(data):
            break
        blocks = _counted(blocks, most)
        length = int(struct.unpack_from(">H", data, place)[0])
        place += length
        if kind == 0xDA:
            scans = _counted(scans, MOST_SCANS)
            scan = _SCAN_END.search(data, place)
            place = scan.start() if scan else len(data)
    return Structure(len(data), blocks)


def _check_tags(data: bytes, most: int) -> int:
    """Number of tags in the first directory of a TIFF file or of EXIF data, which is the one that is read.

    Raises:
        TooManyBlocksError: there are too many tags, or too many values in one of them.
    """
    data = data.removeprefix(_EXIF)
    order = "<" if data[:2] == b"II" else ">"
    number, link, entry, first = _tiff_layout(data)
    try:
        place = struct.unpack_from(f"{order}{link}", data, first)[0]
        count = struct.unpack_from(f"{order}{number}", data, place)[0]
    except struct.error:
        return 0
    place += struct.calcsize(f"={number}")
    count = min(int(count), max(0, (len(data) - place) // entry))
    _counted(count - 1, most)
    for i in range(count):
        _, kind, values = struct.unpack_from(f"{order}HH{link}", data, place + entry * i)
        if kind not in _TEXT_TYPES:
            _counted(min(values, len(data)) - 1, most)
    return int(count)


def _tiff(data: bytes, most: int) -> Structure:
    return Structure(len(data), _check_tags(data, most))


def _tiff_layout(data: bytes) -> tuple[str, str, int, int]:
    """Types of the number of tags and of a link, size of a tag, and offset of the first link."""
    is_big = 43 in (data[2:3] + data[3:4])
    return ("Q", "Q", 20, 8) if is_big else ("H", "I", 12, 4)


def _counted(blocks: int, most: int) -> int:
    if blocks + 1 > most:
        raise TooManyBlocksError(f"the file is made of more than {most} blocks")
    return blocks + 1


_WALKS: tuple[tuple[bytes, Callable[[bytes, int], Structure]], ...] = (
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"\xff\xd8", _jpeg),
    (b"GIF87a", _gif),
    (b"GIF89a", _gif),
    (b"RIFF", _webp),
    (_JPEG_2000, _boxes),
    *((start, _tiff) for start in _TIFF_STARTS),
)
