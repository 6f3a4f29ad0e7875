"""Broken, lying and hostile image files: what a service on the open network is sent sooner or later."""

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

KINDS = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
}
Mutation = Callable[[bytes, random.Random], bytes]


class Mutant(NamedTuple):
    """One file to send."""

    how: str
    """What was done to it."""
    data: bytes
    media_type: str
    """What it is sent as."""


def sound_files() -> dict[str, bytes]:
    """A small picture of each kind, and one of several frames."""
    pixels = np.random.default_rng(0).integers(0, 255, (24, 30, 3), dtype=np.uint8)
    picture, files = Image.fromarray(pixels).resize((60, 48)), {}
    for kind in KINDS:
        buffer = io.BytesIO()
        picture.save(buffer, kind)
        files[kind] = buffer.getvalue()
    buffer = io.BytesIO()
    picture.save(buffer, "GIF", save_all=True, append_images=[picture.rotate(90), picture.rotate(180)])
    return files | {"GIF ": buffer.getvalue()}


def _flip_bits(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 3, 30))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _flip_in_head(data: bytes, chance: random.Random) -> bytes:
    head = min(64, len(data))
    return _flip_bits(data[:head], chance) + data[head:]


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(1, len(data))]


def _cut_out(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    return data[:start] + data[start + chance.randrange(1, 200) :]


def _repeat_part(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    part = data[start : start + chance.randrange(1, 400)]
    return data[:start] + part * chance.randrange(2, 40) + data[start:]


def _overwrite(data: bytes, chance: random.Random) -> bytes:
    start, count = chance.randrange(len(data)), chance.randrange(1, 64)
    return data[:start] + chance.choice((b"\0", b"\xff", chance.randbytes(1))) * count + data[start + count :]


def _large_numbers(data: bytes, chance: random.Random) -> bytes:
    """Lies about sizes: a large number somewhere in the header."""
    number = struct.pack(chance.choice((">I", "<I")), chance.choice((2**31 - 1, 2**32 - 1, 65535, 10**6, 0)))
    start = chance.randrange(0, min(60, len(data) - 4))
    return data[:start] + number + data[start + 4 :]


def _archive_behind(data: bytes, _chance: random.Random) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.html", "<script>alert(1)</script>")
    return data + buffer.getvalue()


def _script_behind(data: bytes, chance: random.Random) -> bytes:
    return data + chance.choice((b"<?php system($_GET[0]);", b"<script>alert(1)</script>", b"%PDF-1.7\n"))


def _other_picture_behind(data: bytes, _chance: random.Random) -> bytes:
    return data + data


def _noise(_data: bytes, chance: random.Random) -> bytes:
    return chance.randbytes(chance.randrange(1, 3000))


def _other_things(_data: bytes, chance: random.Random) -> bytes:
    things = (
        b"",
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        b"\x80\x05\x95\x1f\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94.",
        b"push graphic-context\nviewbox 0 0 640 480\nfill 'url(https://127.0.0.1/)'\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"\x1f\x8b\x08\0" + bytes(60),
        b"http://127.0.0.1:8265/api/jobs/",
    )
    return chance.choice(things)


def _png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _bomb(_data: bytes, chance: random.Random) -> bytes:
    """A few hundred kilobytes that would be gigapixels."""
    side = chance.choice((20_000, 60_000, 2**31 - 1))
    packed = zlib.compress(bytes(1_000_000) * chance.randrange(1, 8), 9)
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    text = _png_chunk(b"zTXt", b"c\0\0" + zlib.compress(bytes(4_000_000), 9)) if side < 50_000 else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + _png_chunk(b"IHDR", head)
        + text
        + _png_chunk(b"IDAT", packed)
        + _png_chunk(b"IEND", b"")
    )


def _text_bomb(_data: bytes, chance: random.Random) -> bytes:
    """A small picture whose comments would unpack to much."""
    text = _png_chunk(b"zTXt", b"c\0\0" + zlib.compress(bytes(5_000_000), 9)) * chance.randrange(1, 6)
    pixels = _png_chunk(b"IDAT", zlib.compress(bytes(4)))
    head = _png_chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + text + pixels + _png_chunk(b"IEND", b"")


MUTATIONS: dict[str, Mutation] = {
    "bit flips": _flip_bits,
    "bit flips in the head": _flip_in_head,
    "truncation": _cut,
    "a part missing": _cut_out,
    "a part many times": _repeat_part,
    "overwritten": _overwrite,
    "lying numbers": _large_numbers,
    "an archive behind": _archive_behind,
    "a script behind": _script_behind,
    "a picture behind": _other_picture_behind,
    "noise": _noise,
    "no picture": _other_things,
    "bomb": _bomb,
    "text bomb": _text_bomb,
}


def mutants(count: int, *, seed: int = 0) -> Iterator[Mutant]:
    """`count` files, every mutation equally often, a tenth of them sent as another kind than they were."""
    chance, files = random.Random(seed), sound_files()
    names = list(MUTATIONS)
    for i in range(count):
        kind = chance.choice(list(files))
        how = names[i % len(names)]
        sent_as = chance.choice([*KINDS.values(), "application/octet-stream", ""])
        media_type = sent_as if chance.random() < 0.1 else KINDS[kind.strip()]
        yield Mutant(how, MUTATIONS[how](files[kind], chance), media_type)
