"""Uploaded files before decoding: bombs, lies, polyglots, animations; and ordinary files of every kind."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from tests.service.fake import WHITE, encode
from uniemo_ray.service.api import file_structure
from uniemo_ray.service.api.file_structure import gif_frames, picture_end, tiff_frames
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
    with Image.open(io.BytesIO(data)) as image:
        assert picture_end(data, image.format) == len(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "progressive"])
@pytest.mark.parametrize("rest", [b"#!/bin/sh\nid", FILES["PNG"], b"\0\0more"])
def test_what_follows_a_picture_is_refused(kind, rest):
    refuse(FILES[kind] + rest, "more than an image")


def test_padding_and_further_pictures_of_a_camera_pass():
    check(FILES["JPEG"] + bytes(64))
    check(FILES["JPEG"] + FILES["JPEG"])
    frames = io.BytesIO()
    NOISE.save(frames, "MPO", save_all=True, append_images=[NOISE])
    check(frames.getvalue(), "image/jpeg")


@pytest.mark.parametrize("kind", MEDIA_TYPES)
def test_archives_scripts_and_documents_in_disguise_are_refused(kind):
    archive = b"PK\x03\x04" + bytes(40) + b"PK\x05\x06" + bytes(18)
    for hidden in (archive, b"<?php system($x);", b"<SCRIPT>alert(1)</SCRIPT>"):
        refuse(FILES[kind] + hidden, "more than an image")


def test_a_document_in_a_comment_is_refused():
    comment = b"%PDF-1.7 obj"
    refuse(
        FILES["JPEG"][:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + FILES["JPEG"][2:],
        "more than an image",
    )


@pytest.mark.parametrize("hidden", [b"7z\xbc\xaf\x27\x1c", b"\x7fELF", b"\xff\xe0", b"\xff\xd9more"])
def test_what_only_begins_like_a_further_picture_is_refused(hidden):
    refuse(FILES["JPEG"] + b"\xff\xd8" + hidden + bytes(range(1, 99)), "more than an image")
    refuse(FILES["JPEG"] + FILES["JPEG"] + b"\xff\xd8" + hidden + bytes(range(1, 99)), "more than an image")


def test_a_false_end_of_an_archive_does_not_hide_the_real_one():
    false_end = b"PK\x05\x06" + bytes(16) + b"\xff\xff"
    end = b"PK\x05\x06" + bytes(16) + struct.pack("<H", len(false_end)) + false_end
    refuse(FILES["BMP"] + b"PK\x03\x04" + bytes(40) + end, "more than an image")


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
    assert picture_end(scan + b"\xff" * 1000 + b"\xd9", "JPEG") == len(scan) + 1001
    assert len(searches) < 9


def test_an_archive_signature_in_the_middle_of_pixels_is_no_archive():
    raw = Image.frombytes("L", (8, 8), (b"PK\x05\x06" + bytes(range(60)))[:64])
    check(encode(raw, "TIFF") + b"")
    check(encode(raw.convert("RGB"), "BMP"))


@pytest.mark.parametrize(
    ("declared", "is_fine"),
    [
        ("image/png", True),
        ("IMAGE/PNG; x=y", True),
        ("application/octet-stream", True),
        ("", True),
        ("image/jpeg", False),
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


def test_a_bare_code_stream_passes_and_hides_no_document():
    data = encode(NOISE, "JPEG2000", no_jp2=True)
    check(data, "image/jp2")
    refuse(data + bytes(2000) + b"%PDF-1.7", "more than an image")


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000"])
@pytest.mark.parametrize(
    "rest", [b"#!/bin/sh\nid; id", FILES["PNG"], struct.pack(">I4s", 16, b"evil") + bytes(8)]
)
def test_what_follows_the_boxes_of_a_picture_is_refused(kind, rest):
    refuse(FILES[kind] + rest, "more than an image")
