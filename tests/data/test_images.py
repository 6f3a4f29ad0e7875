import io
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from uniemo_ray.data.images import (
    FORMATS,
    ImageError,
    augmentation_seed,
    check_picture,
    decode_rgb,
    normalise,
    random_crop_flip,
    to_square,
    to_unit_range,
)

LIMIT = 10_000_000


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def flat(mode: str, colour: Any, size: tuple[int, int] = (4, 3)) -> Image.Image:
    return Image.new(mode, size, colour)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded(flat("RGB", (10, 20, 30))), (10, 20, 30)),
        (encoded(flat("L", 77)), (77, 77, 77)),
        (encoded(flat("1", 1)), (255, 255, 255)),
        (encoded(flat("LA", (50, 0))), (255, 255, 255)),
        (encoded(flat("RGBA", (200, 100, 0, 255))), (200, 100, 0)),
        (encoded(flat("RGBA", (200, 100, 0, 0))), (255, 255, 255)),
        (encoded(flat("RGB", (200, 0, 0)).quantize(4)), (200, 0, 0)),
        (encoded(flat("P", 0), transparency=0), (255, 255, 255)),
        (encoded(flat("CMYK", (0, 255, 255, 0)), "TIFF"), (255, 0, 0)),
        (encoded(flat("RGB", (1, 2, 3)), "BMP"), (1, 2, 3)),
        (encoded(flat("RGB", (1, 2, 3)), "WEBP", lossless=True), (1, 2, 3)),
    ],
    ids=[
        "rgb",
        "grey",
        "bilevel",
        "grey-alpha",
        "opaque",
        "transparent",
        "palette",
        "palette-alpha",
        "cmyk",
        "bmp",
        "webp",
    ],
)
def test_every_kind_of_pixel_becomes_rgb(data: bytes, expected: tuple[int, int, int]) -> None:
    rgb = decode_rgb(data, LIMIT)
    assert rgb.shape == (3, 4, 3)
    assert rgb.dtype == np.uint8
    assert (rgb == expected).all()


def test_cmyk_jpeg_keeps_its_colour() -> None:
    rgb = decode_rgb(encoded(flat("CMYK", (0, 255, 255, 0), (16, 16)), "JPEG", quality=95), LIMIT)
    assert np.abs(rgb.astype(int) - (255, 0, 0)).max() < 12


def test_every_16_bit_grey_is_scaled_and_rounded() -> None:
    values = np.tile(np.arange(65536, dtype=np.uint16).reshape(256, 256), (1, 5))  # more than one chunk
    grey = decode_rgb(encoded(Image.fromarray(values)), LIMIT)[:, :, 0]
    np.testing.assert_array_equal(grey, (values.astype(np.int64) + 128) // 257)


def test_16_bit_grey_takes_no_more_memory_than_other_pictures() -> None:
    data = encoded(Image.fromarray(np.zeros((1000, 2000), dtype=np.uint16)))
    tracemalloc.start()
    decode_rgb(data, LIMIT)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 8 * 2_000_000


def test_16_bit_grey_is_scaled_not_cut() -> None:
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    rgb = decode_rgb(encoded(Image.fromarray(values)), LIMIT)
    assert rgb[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_a_check_refuses_what_cannot_be_converted(mode: str) -> None:
    data = encoded(flat(mode, -5), "TIFF")
    with pytest.raises(ImageError) as decoding:
        decode_rgb(data, LIMIT)
    with pytest.raises(ImageError) as checking:
        check_picture(data, LIMIT)
    assert str(checking.value) == str(decoding.value)
    assert checking.value.reason == "unsupported"


def test_floating_point_pixels_are_refused_by_name() -> None:
    with pytest.raises(ImageError) as error:
        decode_rgb(encoded(flat("F", 0.5), "TIFF"), LIMIT)
    assert error.value.reason == "unsupported"


def test_first_frame_of_an_animation() -> None:
    frames = [flat("RGB", colour) for colour in ((255, 0, 0), (0, 255, 0))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (decode_rgb(data, LIMIT) == (255, 0, 0)).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    pixels = np.zeros((16, 32, 3), dtype=np.uint8)
    pixels[:8, :16] = 255  # bright top left
    exif = Image.Exif()
    exif[0x0112] = orientation
    rgb = decode_rgb(encoded(Image.fromarray(pixels), kind, exif=exif), LIMIT)
    assert rgb.shape[:2] == ((16, 32) if orientation <= 4 else (32, 16))
    assert check_picture(encoded(Image.fromarray(pixels), kind, exif=exif), LIMIT) == rgb.shape[:2]
    bright = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "tl", 6: "tr", 7: "br", 8: "bl"}[orientation]
    row = 2 if bright[0] == "t" else -3
    column = 2 if bright[1] == "l" else -3
    assert rgb[row, column, 0] > 200
    assert rgb[-1 - row, column, 0] < 50
    assert rgb[row, -1 - column, 0] < 50


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "corrupt"),
        (b"hello, I am no picture", "corrupt"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unsupported"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 40, "corrupt"),
    ],
    ids=["empty", "text", "postscript", "png-header"],
)
def test_what_is_no_picture_is_corrupt(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError) as error:
        decode_rgb(data, LIMIT)
    assert error.value.reason == reason


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.4, 0.7, 0.9])
def test_cut_files_are_truncated(encode: Callable[..., bytes], kind: str, share: float) -> None:
    data = encode(size=(64, 64), kind=kind)
    with pytest.raises(ImageError) as error:
        decode_rgb(data[: int(len(data) * share)], LIMIT)
    assert error.value.reason in ("truncated", "corrupt")
    if kind in ("JPEG", "PNG", "BMP"):
        assert error.value.reason == "truncated"


def test_size_is_checked_before_decoding(encode: Callable[..., bytes]) -> None:
    data = encode(size=(100, 50), kind="PNG")
    assert decode_rgb(data, 5000).shape == (50, 100, 3)
    with pytest.raises(ImageError, match=r"100 x 50 .* 4999") as error:
        decode_rgb(data[:60], 4999)  # the pixels are not even there
    assert error.value.reason == "huge"


def test_decompression_bomb_is_huge() -> None:
    header = encoded(flat("L", 0, (8, 8)))
    bomb = bytearray(header)
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    import struct
    import zlib

    bomb[29:33] = struct.pack(">I", zlib.crc32(bytes(bomb[12:29])))
    with pytest.raises(ImageError) as error:
        decode_rgb(bytes(bomb), LIMIT)
    assert error.value.reason == "huge"


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(FORMATS),
    hits=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damage_anywhere_is_an_image_error_or_a_picture(kind: str, hits: list[tuple[float, int]]) -> None:
    rng = np.random.default_rng(0)
    data = bytearray(encoded(Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)), kind))
    for place, value in hits:
        data[int(place * len(data))] = value
    try:
        rgb, reason = decode_rgb(bytes(data), 10_000), None
    except ImageError as error:
        rgb, reason = None, error.reason
    try:
        checked: object = check_picture(bytes(data), 10_000)
    except ImageError as error:
        checked = error.reason
    assert checked == (reason if rgb is None else rgb.shape[:2])
    if rgb is None:
        assert reason in ("corrupt", "truncated", "huge", "unsupported")
    else:
        assert rgb.ndim == 3
        assert rgb.shape[2] == 3
        assert rgb.shape[0] * rgb.shape[1] <= 10_000


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (33, 97), (10, 16), (64, 64), (24, 24)])
def test_to_square_is_clips_own_preprocessing(shape: tuple[int, int]) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    reference = Compose([Resize(24, InterpolationMode.BICUBIC), CenterCrop(24)])(Image.fromarray(rgb))
    assert np.array_equal(to_square(rgb, 24), np.asarray(reference))


def test_augmentation_is_a_function_of_its_arguments() -> None:
    rgb = np.random.default_rng(2).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    views = {}
    for epoch in range(6):
        seed = augmentation_seed(0, epoch, "awe_1")
        one, two = (random_crop_flip(rgb, 32, seed=seed, crop_scale=(0.6, 1.0)) for _ in range(2))
        assert one.shape == (32, 32, 3)
        assert np.array_equal(one, two)
        views[epoch] = one.tobytes()
    assert len(set(views.values())) == 6


def test_augmentation_seeds_differ_in_every_argument() -> None:
    seeds = {augmentation_seed(s, e, i) for s in (0, 1) for e in (0, 1, 10) for i in ("a", "b", "0/a")}
    assert len(seeds) == 18
    assert augmentation_seed(0, 0, "awe_1") == 7481924508102746900  # the same on every machine


@settings(max_examples=200, deadline=None)
@given(
    size=st.sampled_from([(1, 1), (7, 90), (64, 48), (133, 71)]),
    mode=st.sampled_from(["RGB", "L", "CMYK"]),
    is_progressive=st.booleans(),
    kept=st.floats(0.3, 1),
    hits=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=4),
)
def test_a_check_says_of_a_jpeg_what_decoding_says(
    size: tuple[int, int],
    mode: str,
    is_progressive: bool,
    kept: float,
    hits: list[tuple[float, int]],
) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    picture = Image.fromarray(noise).convert(mode)
    data = bytearray(encoded(picture, "JPEG", progressive=is_progressive))
    for place, value in hits:
        data[int(place * len(data))] = value
    cut = bytes(data[: int(kept * len(data))])
    found: list[object] = []
    for look in (check_picture, lambda *given: decode_rgb(*given).shape[:2]):
        try:
            found.append(look(cut, 100_000))
        except ImageError as error:
            found.append(str(error))
    assert found[0] == found[1]


def test_half_of_the_views_are_mirrored() -> None:
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    seeds = [augmentation_seed(3, 0, str(i)) for i in range(400)]
    views = [random_crop_flip(ramp, 16, seed=seed, crop_scale=(0.6, 1.0)) for seed in seeds]
    mirrored = sum(view[0, 0, 0] > view[0, -1, 0] for view in views)
    assert 150 < mirrored < 250


@given(share=st.tuples(st.floats(0.05, 1.0), st.floats(0.05, 1.0)), seed=st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_crop_keeps_the_asked_area(share: tuple[float, float], seed: int) -> None:
    low, high = sorted(share)
    # Every column has its own value, so the kept width can be read from the crop.
    ramp = np.repeat(np.arange(0, 200, dtype=np.uint8)[None, :, None], 200, axis=0).repeat(3, axis=2)
    view = random_crop_flip(ramp, 64, seed=seed, crop_scale=(low, high)).astype(int)
    kept = (view[0, :, 0].max() - view[0, :, 0].min()) / 200
    assert kept <= min(1, np.sqrt(high * 4 / 3)) + 0.03
    assert kept >= np.sqrt(low * 3 / 4) - 0.04


def test_normalise_and_unit_range_values() -> None:
    batch = np.zeros((2, 3, 4, 3), dtype=np.uint8)
    batch[1, 2, 3] = (255, 0, 51)
    batch.setflags(write=False)
    out = normalise(batch, (0.5, 0.0, 0.1), (0.5, 1.0, 0.1))
    assert out.shape == (2, 3, 3, 4)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out[1, :, 2, 3], torch.tensor([1.0, 0.0, 1.0]))
    torch.testing.assert_close(out[0, :, 0, 0], torch.tensor([-1.0, 0.0, -1.0]))
    unit = to_unit_range(batch)
    torch.testing.assert_close(unit[1, :, 2, 3], torch.tensor([1.0, -1.0, -0.6]))
    assert batch[1, 2, 3, 0] == 255


def test_wrong_batch_is_named() -> None:
    with pytest.raises(ValueError, match=r"uint8 pictures \(B, H, W, 3\), got float64"):
        to_unit_range(np.zeros((1, 2, 2, 3)))  # type: ignore[arg-type]
