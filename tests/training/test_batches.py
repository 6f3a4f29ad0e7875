import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as T

from uniemo_ray.data import images
from uniemo_ray.data.images import ImageError, to_unit_range_tensor
from uniemo_ray.data.preprocess import make_preprocess
from uniemo_ray.emotions import EKMAN
from uniemo_ray.training.batches import Collate, decode_latents, encode_latent, joined

COLLATE = Collate(
    preprocess=make_preprocess("clip", size_px=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    scenes=("beach", "street"),
    objects=("lion", "toy", "boat"),
    crop_scale=(0.5, 1.0),
    seed=3,
    max_pixels=10_000,
)


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, size=(24, 32, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def column(values: list[Any]) -> Any:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def raw(order: list[int]) -> dict[str, Any]:
    rows = [
        ("a", picture(0), "awe", "beach", np.array(["lion"], dtype=object)),
        ("b", picture(1), "fear", None, np.array([], dtype=object)),
        ("c", picture(2), "amusement", "street", np.array(["boat", "toy", "lion"], dtype=object)),
    ]
    names = ("image_id", "image", "emotion", "scene", "objects")
    return {name: column([rows[i][j] for i in order]) for j, name in enumerate(names)}


def test_columns_become_tensors() -> None:
    batch = COLLATE(raw([0, 1, 2]), epoch=0, is_training=False)
    assert batch.image_ids == ["a", "b", "c"]
    assert batch.tensors["pixels"].shape == (3, 16, 16, 3)
    assert batch.tensors["pixels"].dtype == torch.uint8
    assert batch.tensors["emotion"].tolist() == [1, 6, 0]
    assert batch.tensors["scene"].tolist() == [0, -1, 1]
    assert batch.tensors["object"][:2].tolist() == [0, -1]
    assert set(batch.tensors) == {"pixels", "emotion", "scene", "object"}


def test_the_encoder_sees_what_its_preprocessing_makes() -> None:
    half = make_preprocess("half", size_px=14, mean=(0.1,) * 3, std=(0.2,) * 3)
    batch = replace(COLLATE, preprocess=half, crop_scale=None)(raw([0, 1]), epoch=0, is_training=True)
    steps = [T.Resize(16), T.CenterCrop(14), T.ToTensor(), T.Normalize((0.5,) * 3, (0.5,) * 3)]
    expected = [T.Compose(steps)(Image.open(io.BytesIO(picture(i)))) for i in (0, 1)]
    seen = half.from_bytes(batch.tensors["pixels"])
    torch.testing.assert_close(seen, torch.stack(expected), atol=1e-6, rtol=0)
    assert half.from_bytes(seen) is seen


def test_bytes_become_the_same_numbers_as_before() -> None:
    """What is normalised on the device is bit by bit what `pixels` makes on the CPU."""
    squares = [np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8) for i in range(3)]
    seen = COLLATE.preprocess.from_bytes(torch.from_numpy(np.stack(squares)))
    before = torch.from_numpy(np.stack(squares).transpose(0, 3, 1, 2).astype(np.float32)).div_(255)
    before = before.sub_(torch.full((1, 3, 1, 1), 0.5)).div_(torch.full((1, 3, 1, 1), 0.5))
    assert torch.equal(seen, before)
    assert torch.equal(seen, COLLATE.preprocess.pixels(squares))
    assert seen.stride() == before.stride()


def photo(width: int, height: int) -> bytes:
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 90 * np.sin(x / (9 + 7 * c) + c) * np.cos(y / (14 - 3 * c)) for c in range(3)]
    file = io.BytesIO()
    Image.fromarray(np.stack(waves, -1).astype(np.uint8)).save(file, format="JPEG", quality=90)
    return file.getvalue()


@pytest.mark.parametrize("crops_unit", [False, True])
def test_large_jpegs_are_decoded_smaller_in_training_alone(crops_unit: bool) -> None:
    """The squares differ from those of the whole picture by less than a grey value, on average."""
    values = {**raw([0]), "image": column([photo(640, 480)])}
    small = replace(COLLATE, max_pixels=10**6, unit_size_px=40, crops_unit=crops_unit)
    seen, whole = (small(values, epoch=2, is_training=t).tensors for t in (True, False))
    with mock_divisors(()):
        full, whole_again = (small(values, epoch=2, is_training=t).tensors for t in (True, False))
    for name in ("pixels", "unit_pixels"):
        assert not torch.equal(seen[name], full[name])
        assert (seen[name].float() - full[name].float()).abs().mean() < 1.0
        assert torch.equal(whole[name], whole_again[name])


def test_what_has_no_pixels_to_spare_is_decoded_as_a_whole() -> None:
    values = {**raw([0]), "image": column([photo(100, 80)])}
    large = replace(COLLATE, preprocess=make_preprocess("half", size_px=40, mean=(0.5,) * 3, std=(0.5,) * 3))
    seen = large(values, epoch=2, is_training=True).tensors["pixels"]
    with mock_divisors(()):
        assert torch.equal(seen, large(values, epoch=2, is_training=True).tensors["pixels"])


@contextmanager
def mock_divisors(divisors: tuple[int, ...]) -> Iterator[None]:
    """No JPEG is decoded smaller meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "_DIVISORS", divisors)
        yield


def test_parts_become_a_batch() -> None:
    parts = [COLLATE(raw(order), epoch=0, is_training=True) for order in ([0, 1], [2])]
    whole = joined(parts, total=9, is_pinned=False)
    expected = COLLATE(raw([0, 1, 2]), epoch=0, is_training=True)
    assert (whole.image_ids, whole.images) == (expected.image_ids, 9)
    assert all(torch.equal(value, whole.tensors[name]) for name, value in expected.tensors.items())


def test_a_row_does_not_depend_on_its_batch() -> None:
    whole = COLLATE(raw([0, 1, 2]), epoch=5, is_training=True).tensors
    turned = COLLATE(raw([2, 0]), epoch=5, is_training=True).tensors
    for name in ("pixels", "object", "scene"):
        assert torch.equal(whole[name][[2, 0]], turned[name])


def test_epochs_augment_differently_and_evaluation_never() -> None:
    first, second = (COLLATE(raw([0]), epoch=e, is_training=True).tensors["pixels"] for e in (0, 1))
    assert not torch.equal(first, second)
    first, second = (COLLATE(raw([0]), epoch=e, is_training=False).tensors["pixels"] for e in (0, 1))
    assert torch.equal(first, second)


def test_each_object_of_an_image_is_drawn_in_some_epoch() -> None:
    drawn = {int(COLLATE(raw([2]), epoch=e, is_training=True).tensors["object"][0]) for e in range(40)}
    assert drawn == {0, 1, 2}


def test_latents_survive_their_column() -> None:
    latent = torch.randn(4, 8, 8)
    values = {**raw([0, 1]), "latent": column([encode_latent(latent), encode_latent(2 * latent)])}
    tensors = COLLATE(values, epoch=0, is_training=True).tensors
    assert tensors["latents"].shape == (2, 4, 8, 8)
    torch.testing.assert_close(tensors["latents"][1], 2 * latent, rtol=1e-3, atol=1e-3)
    assert torch.equal(decode_latents([encode_latent(latent)])[0], tensors["latents"][0])
    with pytest.raises(ValueError, match=r"latent \(c, h, w\), got \(8, 4\)"):
        encode_latent(torch.zeros(8, 4))


def test_without_latents_the_vae_gets_the_whole_image() -> None:
    collate = Collate(**{**vars(COLLATE), "unit_size_px": 8})
    first, second = (collate(raw([0]), epoch=e, is_training=True).tensors["unit_pixels"] for e in (0, 1))
    assert first.shape == (1, 8, 8, 3)
    assert torch.equal(first, second)
    unit = to_unit_range_tensor(first)
    assert unit.shape == (1, 3, 8, 8)
    assert -1 <= unit.min() < 0 < unit.max() <= 1
    assert to_unit_range_tensor(unit) is unit


def test_bad_rows_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="'desert' is not in the attribute base of 2 names"):
        COLLATE({**raw([0]), "scene": column(["desert"])}, epoch=0, is_training=True)
    with pytest.raises(ImageError):
        COLLATE({**raw([0]), "image": column([b"nothing"])}, epoch=0, is_training=True)


def test_labels_of_another_space() -> None:
    rows = raw([0, 1]) | {"emotion": column(["surprise", "joy"])}
    batch = replace(COLLATE, space=EKMAN)(rows, epoch=0, is_training=False)
    assert batch.tensors["emotion"].tolist() == [5, 3]
    with pytest.raises(ValueError, match="unknown ekman label 'awe'"):
        replace(COLLATE, space=EKMAN)(raw([0]), epoch=0, is_training=False)
