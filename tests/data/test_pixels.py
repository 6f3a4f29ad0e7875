"""Pictures in every mode and format of Pillow, against plain conversions written out here."""

import colorsys
import io
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from uniemo_ray.data.images import FORMATS, ImageError, check_picture, decode_rgb, to_square
from uniemo_ray.data.pixels import MAX_ASPECT
from uniemo_ray.data.samples import Entry, Rejected, Sample, read_sample
from uniemo_ray.inference.pictures import read_picture

LIMIT = 1_000_000
HEIGHT, WIDTH = 16, 24
ORIENTATION = 0x0112
Floats = NDArray[np.float64]

RAMP = np.add.outer(np.arange(HEIGHT) * 4, np.arange(WIDTH) * 5).astype(np.uint8)  # 0 to 175
BANDS = [RAMP, RAMP[::-1], RAMP[:, ::-1], 80 + RAMP[::-1, ::-1]]
PALETTE = np.stack([255 - np.arange(256), np.arange(256), np.arange(256) // 2], axis=1).astype(np.uint8)


def picture(mode: str) -> Image.Image:
    """A picture whose bands are ramps of different directions."""
    if mode == "1":
        return Image.fromarray(RAMP > 90)
    if mode.startswith("I;16"):
        values = (RAMP.astype(np.uint16) * 300).astype(">u2" if mode.endswith("B") else "<u2")
        return Image.frombytes(mode, (WIDTH, HEIGHT), values.tobytes())
    if mode in ("I", "F"):
        return Image.fromarray((RAMP.astype(np.int32) * 300).astype(np.int32 if mode == "I" else np.float32))
    count = len(Image.new(mode, (1, 1)).getbands())
    bands = [RAMP, BANDS[3]] if count == 2 else BANDS[:count]
    if mode in ("RGBa", "La"):  # premultiplied: no colour is above its alpha
        bands = [np.minimum(band, BANDS[3]) for band in bands]
    image = Image.frombytes(mode, (WIDTH, HEIGHT), np.stack(bands, axis=-1).tobytes())
    if mode in ("P", "PA"):
        image.putpalette(PALETTE.tobytes())
    return image


def over_white(colours: Floats, alpha: Floats) -> Floats:
    share = alpha[..., None] / 255
    return colours * share + 255 * (1 - share)


def from_lab(bands: list[Floats]) -> Floats:
    """CIE L*a*b* (D50) to sRGB by the published formulas."""
    lightness, a, b = bands[0] / 2.55, bands[1], bands[2]
    y = (lightness + 16) / 116
    xyz = np.stack([y + a / 500, y, y - b / 200], axis=-1)
    xyz = np.where(xyz > 6 / 29, xyz**3, 3 * (6 / 29) ** 2 * (xyz - 4 / 29)) * (0.9642, 1.0, 0.8249)
    to_linear = np.array(
        [[3.1339, -1.6169, -0.4906], [-0.9788, 1.9161, 0.0335], [0.0719, -0.2290, 1.4052]]
    )  # D50 to linear sRGB, Bradford-adapted
    linear = np.clip(xyz @ to_linear.T, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def plain(mode: str) -> Floats:
    """The colours that a viewer shows of `picture(mode)`, as floats."""
    first, second, third, fourth = (band.astype(float) for band in BANDS)
    grey = np.stack([first] * 3, axis=-1)
    colour = np.stack([first, second, third], axis=-1)
    looked_up = PALETTE[RAMP].astype(float)
    if mode in ("RGBa", "La"):
        premultiplied = colour if mode == "RGBa" else grey
        return np.minimum(premultiplied, fourth[..., None]) + 255 - fourth[..., None]
    if mode in ("I;16", "I;16L", "I;16B", "I;16N", "I"):
        return grey * 300 / 257
    if mode == "YCbCr":
        red, blue = third - 128, second - 128
        return np.stack(
            [first + 1.402 * red, first - 0.344136 * blue - 0.714136 * red, first + 1.772 * blue], axis=-1
        ).clip(0, 255)
    if mode == "HSV":
        cells = (colour / 255).reshape(-1, 3)
        return 255 * np.array([colorsys.hsv_to_rgb(*cell) for cell in cells]).reshape(colour.shape)
    if mode == "LAB":
        signed = [band.view(np.int8).astype(float) for band in (BANDS[1].copy(), BANDS[2].copy())]
        return from_lab([first, *signed])
    return {
        "1": 255.0 * (grey > 90),
        "L": grey,
        "LA": over_white(grey, fourth),
        "P": looked_up,
        "PA": over_white(looked_up, fourth),
        "RGB": colour,
        "RGBX": colour,
        "RGBA": over_white(colour, fourth),
        "CMYK": (255 - colour) * (255 - fourth[..., None]) / 255,
    }[mode]


READABLE = [mode for mode in Image.MODES if mode != "F"]
LOSS = {"JPEG": 32, "AVIF": 2}
TOLERANCE = {"YCbCr": 2, "HSV": 4, "LAB": 10}


@pytest.mark.parametrize("mode", READABLE)
def test_every_mode_gives_the_colours_of_a_plain_conversion(mode: str) -> None:
    found = read_picture(picture(mode), 0).astype(float)
    assert found.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(found - plain(mode)).max() <= TOLERANCE.get(mode, 1.01)


LOSSLESS: dict[str, dict[str, Any]] = {
    "WEBP": {"lossless": True, "exact": True},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}


def saved(mode: str, kind: str) -> bytes | None:
    """The picture as a file, or None where Pillow writes no such file or another kind of pixels."""
    buffer = io.BytesIO()
    try:
        picture(mode).save(buffer, kind, **LOSSLESS.get(kind, {}))
    except (OSError, ValueError):
        return None
    with Image.open(buffer) as image:
        is_cut = mode[0] in "IF" and image.mode[0] not in "IF"  # written with 8 bits, which is Pillow's loss
        is_reduced = kind == "GIF" and mode not in ("1", "L", "P")
        is_bilevel = kind == "BMP" and mode == "P" and image.mode == "1"
        is_swapped = kind == "JPEG2000" and mode == "I;16B"  # its bytes are written as they lie
        return None if is_cut or is_reduced or is_bilevel or is_swapped else buffer.getvalue()


FILES = [(mode, kind) for mode in READABLE for kind in FORMATS if saved(mode, kind)]


@pytest.mark.parametrize(("mode", "kind"), FILES)
def test_what_pillow_writes_is_read_alike_in_every_form(mode: str, kind: str, tmp_path: Path) -> None:
    data = saved(mode, kind)
    assert data
    (tmp_path / "a").write_bytes(data)
    found = decode_rgb(data, LIMIT)
    allowed = LOSS.get(kind, 0) + TOLERANCE.get(mode, 1.01)
    if (mode, kind) != ("RGBA", "BMP"):  # Pillow writes no alpha there
        assert np.abs(found.astype(float) - plain(mode)).max() <= allowed
    assert check_picture(data, LIMIT) == found.shape[:2]
    for form in (tmp_path / "a", str(tmp_path / "a"), data, bytearray(data), Image.open(io.BytesIO(data))):
        np.testing.assert_array_equal(read_picture(form, 0), found)
    sample = read_sample(tmp_path, Entry("a", "awe", "a", None), max_pixels=LIMIT)
    assert isinstance(sample, Sample)
    assert (sample.height, sample.width) == (HEIGHT, WIDTH)


def test_the_table_holds_every_format_and_most_modes() -> None:
    assert {kind for _, kind in FILES} == set(FORMATS)
    assert {mode for mode, _ in FILES} >= {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "LAB", "I;16"}


@pytest.mark.parametrize(
    ("array", "mode"),
    [
        (RAMP, "L"),
        (np.stack(BANDS[:3], axis=-1), "RGB"),
        (np.stack(BANDS, axis=-1), "RGBA"),
        (RAMP.astype(np.uint16) * 300, "I;16"),
    ],
    ids=["grey", "rgb", "rgba", "16-bit"],
)
def test_arrays_are_read_as_pictures_are(array: NDArray[np.generic], mode: str) -> None:
    np.testing.assert_array_equal(read_picture(array, 0), read_picture(picture(mode), 0))


@pytest.mark.parametrize("array", [np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 2), np.uint8), RAMP / 255])
def test_other_arrays_are_refused_with_their_shape(array: NDArray[np.generic]) -> None:
    with pytest.raises(ValueError, match=rf"got {array.dtype} \({array.shape[0]}, "):
        read_picture(array, 0)


def test_floating_point_is_refused_alike_as_image_and_as_file() -> None:
    buffer = io.BytesIO()
    picture("F").save(buffer, "TIFF")
    for form in (picture("F"), buffer.getvalue()):
        with pytest.raises(ValueError, match="unsupported: floating-point pixels"):
            read_picture(form, 0)


@pytest.mark.parametrize(
    ("mode", "transparency"),
    [("RGB", b"\1"), ("P", 400), ("CMYK", (1, 2, 3)), ("HSV", 3), ("L", 300)],
)
def test_a_transparent_colour_that_cannot_be_meant_is_left_alone(mode: str, transparency: object) -> None:
    image = picture(mode)
    image.info["transparency"] = transparency
    np.testing.assert_array_equal(read_picture(image, 0), read_picture(picture(mode), 0))


def test_a_transparent_grey_of_16_bits_is_white() -> None:
    buffer = io.BytesIO()
    picture("I;16").save(buffer, "PNG", transparency=int(RAMP[2, 3]) * 300)
    rgb = decode_rgb(buffer.getvalue(), LIMIT)
    is_hidden = np.equal(RAMP, RAMP[2, 3])
    assert (rgb[is_hidden] == 255).all()
    assert (rgb[~is_hidden] < 255).all()


def with_orientation(kind: int, value: bytes, count: int) -> bytes:
    """A JPEG whose orientation tag has some type; values of up to four bytes, big endian."""
    entry = struct.pack(">HHI", ORIENTATION, kind, count) + value.ljust(4, b"\0")
    tiff = b"MM\0*" + struct.pack(">IH", 8, 1) + entry + bytes(4)
    segment = b"Exif\0\0" + tiff
    buffer = io.BytesIO()
    Image.fromarray(np.stack(BANDS[:3], axis=-1)).save(buffer, "JPEG")
    data = buffer.getvalue()
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]


@pytest.mark.parametrize(
    ("kind", "value", "count"),
    [
        (1, b"\6", 1),  # BYTE
        (2, b"6\0", 2),  # ASCII
        (3, b"\0\6", 1),  # SHORT, as the standard says
        (3, b"\0\6\0\6", 2),  # two of them
        (4, b"\0\0\0\6", 1),  # LONG
        (6, b"\6", 1),  # SBYTE
        (7, b"\6", 1),  # UNDEFINED
        (7, b"\0\6", 2),
        (8, b"\0\6", 1),  # SSHORT
        (9, b"\0\0\0\6", 1),  # SLONG
        (11, struct.pack(">f", 6), 1),  # FLOAT
    ],
)
def test_an_orientation_of_any_type_turns_the_picture(kind: int, value: bytes, count: int) -> None:
    data = with_orientation(kind, value, count)
    assert check_picture(data, LIMIT) == (WIDTH, HEIGHT)
    for form in (data, Image.open(io.BytesIO(data))):
        assert read_picture(form, 0).shape == (WIDTH, HEIGHT, 3)


@pytest.mark.parametrize(
    ("kind", "value", "count"),
    [
        (2, b"top\0", 4),
        (7, b"\xff\xfe", 2),
        (3, b"\0\x63", 1),
        (11, struct.pack(">f", 0.5), 1),
        (99, b"\6", 1),
    ],
)
def test_an_orientation_without_meaning_is_none(kind: int, value: bytes, count: int) -> None:
    data = with_orientation(kind, value, count)
    for form in (data, Image.open(io.BytesIO(data))):
        assert read_picture(form, 0).shape == (HEIGHT, WIDTH, 3)


def jpeg() -> bytes:
    buffer = io.BytesIO()
    picture("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


MP4 = (
    struct.pack(">I4s", 16, b"ftyp") + b"mp42\0\0\0\0" + struct.pack(">I4s", 108, b"mdat") + bytes(range(100))
)


@pytest.mark.parametrize(
    "trailer",
    [
        b"\xff" * 64,
        b"\xff\xd9",
        MP4,
        b"SEFH" + struct.pack("<III", 106, 0, 12) + b"SEFT",
        b"\r\n--boundary--\r\n",
        bytes(range(1, 33)),
    ],
    ids=["padding", "second end", "motion photo", "samsung", "upload", "scanner"],
)
def test_what_phones_append_to_a_jpeg_changes_nothing(trailer: bytes) -> None:
    data = jpeg() + trailer
    np.testing.assert_array_equal(decode_rgb(data, LIMIT), decode_rgb(jpeg(), LIMIT))
    assert check_picture(data, LIMIT) == (HEIGHT, WIDTH)


def test_a_jpeg_with_a_second_picture_behind_it_is_its_first() -> None:
    buffer = io.BytesIO()
    picture("RGB").save(buffer, "MPO", save_all=True, append_images=[picture("L")])
    with Image.open(buffer) as image:
        assert image.format == "MPO"
    np.testing.assert_array_equal(decode_rgb(buffer.getvalue(), LIMIT), decode_rgb(jpeg(), LIMIT))


@pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000), (MAX_ASPECT * 2 + 1, 2)])
def test_a_picture_beyond_use_is_thin_everywhere(size: tuple[int, int], tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, "PNG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    for look in (check_picture, decode_rgb):
        with pytest.raises(ImageError, match=rf"{size[0]} x {size[1]}.*more than 100 times") as error:
            look(buffer.getvalue(), LIMIT)
        assert error.value.reason == "thin"
    refused = read_sample(tmp_path, Entry("a", "awe", "a.png", None), max_pixels=LIMIT)
    assert isinstance(refused, Rejected)
    assert refused.reason == "image_thin"
    for form in (tmp_path / "a.png", Image.new("L", size), np.zeros((size[1], size[0], 3), np.uint8)):
        with pytest.raises(ValueError, match="cannot be read: thin"):
            read_picture(form, 0)


COST = """
import resource
import numpy as np
from uniemo_ray.data.images import random_crop_flip, to_square
long = np.zeros((20, 20 * 100, 3), np.uint8)
to_square(np.zeros((1000, 1500, 3), np.uint8), 1024)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
to_square(long, 1024)
random_crop_flip(long, 1024, seed=1, crop_scale=(0.6, 1.0))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_long_picture_costs_no_more_than_an_ordinary_one() -> None:
    # Pillow's memory is seen by the system alone; its peak is one of a whole process.
    run = subprocess.run([sys.executable, "-c", COST], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 30  # MiB


@pytest.mark.parametrize("shape", [(10, 41), (41, 10), (7, 90), (50, 4999), (333, 1500), (1, 100)])
def test_the_square_of_a_long_picture_is_the_centre_of_the_whole(shape: tuple[int, int]) -> None:
    rgb = np.random.default_rng(0).integers(100, 150, (*shape, 3), dtype=np.uint8)  # bicubic cuts nothing
    high, wide = (24 * side // min(shape) for side in shape)
    whole = np.asarray(Image.fromarray(rgb).resize((wide, high), Image.Resampling.BICUBIC)).astype(int)
    top, left = round((high - 24) / 2), round((wide - 24) / 2)
    assert np.abs(whole[top : top + 24, left : left + 24] - to_square(rgb, 24)).max() <= 1
