"""Pictures on disk, decoded when they are asked for."""

import io

import numpy as np
import pytest
from PIL import Image

from uniemo_ray.data.images import ImageError, decode_rgb
from uniemo_ray.metrics import pictures as own_pictures
from uniemo_ray.metrics.pictures import PictureFile, as_saved


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def test_rows_come_back_in_the_order_asked_for() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    with PictureFile(size_px=8, max_pixels=64) as pictures:
        for row, picture in zip((7, 2, 5), pixels, strict=True):
            pictures.add(row, png(picture))
        assert len(pictures) == 3
        np.testing.assert_array_equal(pictures(np.array([5, 7])), pixels[[2, 0]])
        np.testing.assert_array_equal(pictures(np.array([2])), pixels[[1]])
        with pytest.raises(KeyError):
            pictures(np.array([0]))


def test_pictures_are_brought_to_one_size_and_large_ones_refused() -> None:
    with PictureFile(size_px=4, max_pixels=100) as pictures:
        pictures.add(0, png(np.full((6, 12, 3), 9, dtype=np.uint8)))
        pictures.add(1, png(np.zeros((11, 11, 3), dtype=np.uint8)))
        assert pictures(np.array([0])).shape == (1, 4, 4, 3)
        with pytest.raises(ImageError, match="huge"):
            pictures(np.array([1]))


def test_a_picture_is_decoded_from_its_own_bytes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    def decode(data: bytes, max_pixels: int) -> np.ndarray:
        seen.append(data)
        return decode_rgb(data, max_pixels)

    monkeypatch.setattr(own_pictures, "decode_rgb", decode)
    files = [png(np.full((8, 8, 3), grey, dtype=np.uint8)) for grey in (1, 2, 3)]
    with PictureFile(size_px=8, max_pixels=64) as pictures:
        for row, data in enumerate(files):
            pictures.add(row, data)
        pictures(np.array([1, 0, 2]))
        assert seen == [files[1], files[0], files[2]]


@pytest.mark.parametrize("side", [8, 310])
def test_a_generated_picture_is_read_from_its_jpeg_file(side: int) -> None:
    rgb = np.random.default_rng(6).integers(0, 256, (side, side + 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG")
    np.testing.assert_array_equal(as_saved(rgb), np.asarray(Image.open(file)))
    assert as_saved(rgb).shape == rgb.shape
    assert (as_saved(rgb) != rgb).any()
