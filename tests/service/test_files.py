"""Uploaded files before decoding: bombs, lies, polyglots, animations; and ordinary files of every kind."""

import contextlib
import io
import struct
import time
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from tests.service.fake import WHITE, encode
from uniemo_ray.service.api import file_structure
from uniemo_ray.service.api.file_structure import gif_frames, read_structure, tiff_frames
from uniemo_ray.service.api.files import MEDIA_TYPES, inspect
from uniemo_ray.service.api.problems import ProblemError
from uniemo_ray.service.settings import Limits

LIMITS = Limits(pixels=10_000, frames=4)
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))
FILES = {kind: encode(NOISE, kind) for kind in MEDIA_TYPES}
FILES |= {
    "progressive": encode(NOISE, "JPEG", progressive=True),
    "exif": encode(NOISE, "JPEG", exif=Image.Exif()),
    "lossless": encode(NOISE, "WEBP", lossless=True),
    "palette": encode(NOISE.convert("P"), "PNG"),
}


def check(data: bytes, media_type: str = "") -> None:
    inspect(data, media_type=media_type, limits=LIMITS, field="image")


def refuse(data: bytes, words: str, media_type: str = "") -> None:
    with pytest.raises(ProblemError, match=words) as error:
        check(data, media_type)
    assert error.value.status_code == 422
    assert error.value.field == "image"


@pytest.mark.parametrize("kind", FILES)
def test_ordinary_files_pass_and_their_ends_are_found(kind):
    data = FILES[kind]
    check(data)
    assert read_structure(data).end == len(data)


def samsung_trailer() -> bytes:
    """A block with a date, its directory (SEFH) and the end of the directory (SEFT)."""
    name, value = b"Image_UTC_Data", b"1600000000000"
    block = b"\0\0\x01\x0a" + struct.pack("<I", len(name)) + name + value
    directory = (
        b"SEFH" + struct.pack("<II", 107, 1) + b"\0\0\x01\x0a" + struct.pack("<II", len(block), len(block))
    )
    return block + directory + struct.pack("<I", len(directory)) + b"SEFT"


VIDEO = (
    struct.pack(">I", 24)
    + b"ftypmp42"
    + bytes(4)
    + b"mp42isom"
    + struct.pack(">I", 4016)
    + b"mdat"
    + b"x" * 4008
)
BEHIND = {
    "Samsung's notes": samsung_trailer(),
    "a video": VIDEO,
    "a video and notes": b"\0\0\x30\x0a"
    + struct.pack("<I", 16)
    + b"MotionPhoto_Data"
    + VIDEO
    + samsung_trailer(),
    "padding": bytes(64),
    "fill bytes": b"\xff" * 64,
    "a second end": b"\xff\xd9",
    "a line break": b"\r\n",
    "another image": FILES["JPEG"],
    "half an image": FILES["JPEG"][:-99],
    "an archive": b"PK\x03\x04" + bytes(40) + b"PK\x05\x06" + bytes(18),
    "a script": b"<?php system($x);",
    "a million empty chunks": b"\0\0\0\0prVt\0\0\0\0" * 1_000_000,
}


@pytest.mark.parametrize("what", BEHIND)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "progressive", "lossless", "palette"])
def test_what_phones_and_editors_append_is_cut_off(kind, what):
    assert inspect(FILES[kind] + BEHIND[what], media_type="", limits=LIMITS, field="").data == FILES[kind]


def test_images_of_a_camera_that_takes_several_pass():
    frames = io.BytesIO()
    NOISE.save(frames, "MPO", save_all=True, append_images=[NOISE])
    check(frames.getvalue(), "image/jpeg")
    check(frames.getvalue() + samsung_trailer(), "image/jpeg")


def test_a_document_in_a_comment_is_refused():
    comment = b"%PDF-1.7 obj"
    refuse(
        FILES["JPEG"][:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + FILES["JPEG"][2:],
        "more than an image",
    )


def test_structure_is_read_in_few_steps(monkeypatch):
    """A file can hold a million stuffed zeros or fill bytes, which must not take a step of Python each."""
    searches = []

    class Counted:
        def __init__(self, pattern):
            self.pattern = pattern

        def match(self, *arguments):
            searches.append(arguments)
            return self.pattern.match(*arguments)

        def search(self, *arguments):
            searches.append(arguments)
            return self.pattern.search(*arguments)

    for name in ("_MARKER", "_SCAN_END"):
        monkeypatch.setattr(file_structure, name, Counted(getattr(file_structure, name)))
    scan = b"\xff\xd8\xff\xda\x00\x02" + b"\xff\x00" * 1000
    assert read_structure(scan + b"\xff" * 1000 + b"\xd9").end == len(scan) + 1001
    assert len(searches) < 9


@pytest.mark.parametrize(
    ("declared", "is_fine"),
    [
        ("image/png", True),
        ("IMAGE/PNG; x=y", True),
        ("application/octet-stream", True),
        ("binary/octet-stream", True),
        ("image/x-png", True),
        ("", True),
        ("image/jpeg", False),
        ("image/pjpeg", False),
        ("text/html", False),
        ("image/svg+xml", False),
    ],
)
def test_a_file_is_what_it_is_called(declared, is_fine):
    if is_fine:
        check(WHITE, declared)
    else:
        refuse(WHITE, "but is image/png", declared)


def test_bombs_are_refused_by_their_header():
    bomb = encode(Image.new("1", (4000, 4000)))
    assert len(bomb) < 5000
    refuse(bomb, "more than 10000 pixels")
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)
    lying = WHITE[:8] + struct.pack(">I", 13) + ihdr + struct.pack(">I", zlib.crc32(ihdr)) + WHITE[33:]
    refuse(lying, "too many pixels")


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_frames_are_counted_without_decoding(kind):
    shades = [Image.new("RGB", (9, 9), (40 * i, 0, 0)) for i in range(6)]
    few = encode(shades[0], kind, save_all=True, append_images=shades[1:4])
    many = encode(shades[0], kind, save_all=True, append_images=shades[1:])
    check(few)
    refuse(many, "more than 4 frames")


def test_frames_count_towards_the_pixels():
    large = [Image.new("RGB", (60, 60), (40 * i, 0, 0)) for i in range(4)]
    check(encode(large[0], "GIF"))
    refuse(encode(large[0], "GIF", save_all=True, append_images=large[1:]), "more than 10000 pixels")


def test_endless_directories_end():
    data = bytearray(FILES["TIFF"])
    first = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, first)[0]
    struct.pack_into("<I", data, first + 2 + 12 * count, first)  # points to itself
    assert tiff_frames(bytes(data), 9) == 10
    assert gif_frames(b"GIF89a" + bytes(7), 4) == 1


def png_of(chunks: bytes) -> bytes:
    start = FILES["PNG"].index(b"IDAT") - 4
    return FILES["PNG"][:start] + chunks + FILES["PNG"][start:]


def webp_of(chunks: bytes) -> bytes:
    body = FILES["WEBP"][12:] + chunks
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def gif_of(blocks: bytes) -> bytes:
    return FILES["GIF"][:-1] + blocks + b"\x3b"


def tiff_of(tags: int, values: int) -> bytes:
    entry = struct.pack("<HHII", 700, 4, values, 8)
    return b"II*\0" + struct.pack("<IH", 8, tags) + entry * tags + bytes(4 + 4 * values)


TINY = 30_000
SLOW = {
    "empty PNG chunks": png_of(b"\0\0\0\0prVt\0\0\0\0" * TINY),
    "empty PNG texts": png_of(b"\0\0\0\0tEXt\0\0\0\0" * TINY),
    "JPEG segments": FILES["JPEG"][:2] + b"\xff\xee\x00\x02" * TINY + FILES["JPEG"][2:],
    "JPEG scans": FILES["JPEG"][:-2] + b"\xff\xda\x00\x02" * 200 + b"\xff\xd9",
    "WebP chunks": webp_of(b"abcd\0\0\0\0" * TINY),
    "GIF comments": gif_of(b"\x21\xfe\x00" * TINY),
    "GIF sub-blocks": gif_of(b"\x21\xfe" + b"\x01a" * TINY + b"\x00"),
    "TIFF tags": tiff_of(20_000, 1),
    "TIFF values": tiff_of(1, 200_000),
    "EXIF values in a PNG": png_of(
        struct.pack(">I", len(tiff_of(1, 200_000))) + b"eXIf" + tiff_of(1, 200_000) + bytes(4)
    ),
}


@pytest.mark.parametrize("what", SLOW)
def test_a_file_of_too_many_blocks_is_refused_before_it_is_read(what, monkeypatch):
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("it was opened"))
    refuse(SLOW[what], "made of more than|too many tiny blocks")


def test_large_files_may_have_more_blocks():
    """Encoders write chunks of 8 kB and less, and GIF's blocks have at most 255 bytes."""
    data = bytes(range(256)) * 15  # 3840 bytes
    chunk = struct.pack(">I", len(data)) + b"prVt" + data + struct.pack(">I", zlib.crc32(b"prVt" + data))
    check(png_of(chunk * 4000))
    check(gif_of(b"\x21\xfe" + (b"\xff" + bytes(255)) * 50_000 + b"\0"))


def test_reading_a_slow_file_ends_soon():
    before = time.thread_time()
    for data in (png_of(b"\0\0\0\0prVt\0\0\0\0" * 1_600_000), gif_of(b"\x21\xfe\x00" * 6_000_000)):
        refuse(data, "made of more than")
    assert time.thread_time() - before < 1.0  # 9 s and more in Pillow


@given(st.sampled_from(sorted(FILES)), st.data())
def test_damage_never_raises_anything_else(kind, data):
    file = bytearray(FILES[kind])
    for _ in range(data.draw(st.integers(1, 8))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(file[: data.draw(st.integers(0, len(file)))])
    with contextlib.suppress(ProblemError):
        check(cut)


def test_pictures_of_phones_that_are_not_read_are_named():
    heic = struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + bytes(90)
    refuse(heic, "HEIC picture, as phones write it: convert it to JPEG or PNG")


def test_texts_of_a_png_cost_no_upload():
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "x" * 3_000_000, zip=True)
    check(encode(NOISE, "PNG", pnginfo=info))


def test_a_bare_code_stream_passes():
    check(encode(NOISE, "JPEG2000", no_jp2=True), "image/jp2")


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000"])
@pytest.mark.parametrize(
    "rest", [b"#!/bin/sh\nid; id", FILES["PNG"], struct.pack(">I4s", 16, b"evil") + bytes(8)]
)
def test_what_follows_the_boxes_of_a_picture_is_cut_off(kind, rest):
    found = inspect(FILES[kind] + rest, media_type="", limits=Limits(), field="")
    assert found.data == FILES[kind]
