"""Pictures of formats that phones and shops write, and files that are none: read, or named with advice."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tests.data import layouts
from uniemo_ray.config import SPLITS
from uniemo_ray.data.class_folders import read_class_folders
from uniemo_ray.data.images import ImageError, check_picture, decode_rgb
from uniemo_ray.data.readers import plain
from uniemo_ray.data.samples import Entry, Rejected, read_sample
from uniemo_ray.emotions import SENTIMENT
from uniemo_ray.inference.pictures import read_picture

LIMIT = 1_000_000
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 34\n"


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), name) + content


def brands(major: bytes, *compatible: bytes) -> bytes:
    return box(b"ftyp", major + bytes(4) + b"".join(compatible)) + box(b"meta", bytes(90))


FOREIGN = {
    "heic": (brands(b"heic", b"mif1", b"heic"), "unsupported: a HEIC picture, .*: convert it to JPEG"),
    "heic-by-compatible": (brands(b"mif1", b"mif1", b"heic"), "unsupported: a HEIC picture"),
    "video": (brands(b"isom", b"mp42"), "unsupported: a video"),
    "jpeg-xl": (b"\xff\x0a" + bytes(50), "unsupported: a JPEG XL file: convert it"),
    "svg": (
        b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>",
        "unsupported: a drawing in SVG",
    ),
    "photoshop": (b"8BPS\0\1" + bytes(50), "unsupported: a Photoshop file"),
    "zip": (b"PK\x03\x04" + bytes(50), "unsupported: a ZIP archive: unpack it"),
    "pointer": (POINTER, "corrupt: a pointer of Git LFS, .*git lfs pull"),
    "page": (b"\n<!DOCTYPE HTML><html><body>403</body></html>", "corrupt: a web page or an error message"),
    "storage-error": (
        b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
        "corrupt: a web page",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_readable_picture_is_named_with_what_to_do(name: str, tmp_path: Path) -> None:
    data, words = FOREIGN[name]
    for reader in (decode_rgb, check_picture):
        with pytest.raises(ImageError, match=words):
            reader(data, LIMIT)
    with pytest.raises(ValueError, match=words):
        read_picture(data, 0)
    (tmp_path / "a.jpg").write_bytes(data)
    sample = read_sample(tmp_path, Entry("a", "awe", "a.jpg", None), max_pixels=LIMIT)
    assert isinstance(sample, Rejected)
    assert sample.reason == f"image_{words.partition(':')[0]}"


@pytest.mark.parametrize("suffix", [".avif", ".jp2", ".heic", ".jxl"])
def test_pictures_of_such_names_are_listed_and_not_passed_over(suffix: str, tmp_path: Path) -> None:
    layouts.class_folders(tmp_path, SENTIMENT.labels, 4)
    (tmp_path / "positive" / f"more{suffix}").write_bytes(FOREIGN["heic"][0])
    folder = read_class_folders(tmp_path, plain(SENTIMENT), seed=0)
    listed = {entry.image for split in SPLITS for entry in folder.entries(split)}
    assert f"positive/more{suffix}" in listed


@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_turned_as_its_file_says(orientation: int) -> None:
    pixels = np.zeros((16, 32, 3), dtype=np.uint8)
    pixels[:8, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    jpeg, avif = io.BytesIO(), io.BytesIO()
    Image.fromarray(pixels).save(jpeg, "JPEG", exif=exif, quality=95)
    Image.fromarray(pixels).save(avif, "AVIF", exif=exif)
    expected, found = (decode_rgb(file.getvalue(), LIMIT).astype(int) for file in (jpeg, avif))
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 4
    assert check_picture(avif.getvalue(), LIMIT) == found.shape[:2]


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_a_cut_file_is_no_picture(kind: str, share: float) -> None:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, kind)
    data = buffer.getvalue()
    for reader in (decode_rgb, check_picture):
        with pytest.raises(ImageError, match=r"corrupt|truncated"):
            reader(data[: int(len(data) * share)], LIMIT)


def png(*, info: PngImagePlugin.PngInfo | None = None, profile: bytes | None = None) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (200, 30, 10)).save(buffer, "PNG", pnginfo=info, icc_profile=profile)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def texts() -> dict[str, bytes]:
    large, info, plain_info = "x" * 3_000_000, PngImagePlugin.PngInfo(), PngImagePlugin.PngInfo()
    info.add_itxt("workflow", large, zip=True)
    plain_info.add_text("parameters", large, zip=True)
    before_end = png().rindex(b"IEND") - 4
    late = chunk(b"zTXt", b"k\0\0" + zlib.compress(large.encode()))
    broken = bytearray(chunk(b"tEXt", b"k\0hello"))
    broken[-1] ^= 1
    return {
        "workflow": png(info=info),
        "parameters": png(info=plain_info),
        "profile of a printer": png(profile=bytes(2_500_000)),
        "behind the pixels": png()[:before_end] + late + png()[before_end:],
        "damaged text": png()[:33] + broken + png()[33:],
    }


@pytest.mark.parametrize("name", texts())
def test_what_a_png_says_beside_its_picture_costs_no_picture(name: str) -> None:
    data = texts()[name]
    assert (decode_rgb(data, LIMIT) == (200, 30, 10)).all()
    assert check_picture(data, LIMIT) == (6, 8)


@pytest.mark.parametrize("keyword", ["Raw profile type exif", "XML:com.adobe.xmp"])
def test_a_text_that_turns_the_picture_stays(keyword: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = exif.tobytes()
    info = PngImagePlugin.PngInfo()
    if keyword.startswith("XML"):
        info.add_itxt(keyword, '<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6"/></x:xmpmeta>')
    else:
        info.add_text(keyword, f"\nexif\n{len(raw):8}\n{raw.hex()}\n", zip=True)
    assert decode_rgb(png(info=info), LIMIT).shape == (8, 6, 3)
