"""What the tower sees equals what torchvision makes of the same picture."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as T
from torchvision.transforms import InterpolationMode

from uniemo_ray.data.preprocess import PreprocessName, make_preprocess

OWN = {"mean": (0.4, 0.5, 0.3), "std": (0.2, 0.3, 0.25)}
SHAPES = [(300, 400), (400, 300), (224, 224), (256, 256), (97, 33), (20, 31), (512, 225)]


def theirs(name: str, size_px: int) -> Any:
    """The published transforms, for 224; for another side the same shares."""
    shorter, filter_, mean, std = {
        "clip": (size_px, InterpolationMode.BICUBIC, OWN["mean"], OWN["std"]),
        "imagenet": (size_px, InterpolationMode.BILINEAR, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "half": ({224: 256, 32: 36}[size_px], InterpolationMode.BILINEAR, (0.5,) * 3, (0.5,) * 3),
    }[name]
    steps = [T.Resize(shorter, filter_), T.CenterCrop(size_px), T.ToTensor(), T.Normalize(mean, std)]
    return T.Compose(steps)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size_px", [224, 32])
@pytest.mark.parametrize("name", ["clip", "imagenet", "half"])
def test_a_picture_is_shown_as_torchvision_shows_it(
    name: PreprocessName, size_px: int, shape: tuple[int, int]
) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    ours = make_preprocess(name, size_px=size_px, **OWN)
    expected = theirs(name, size_px)(Image.fromarray(rgb))
    torch.testing.assert_close(ours.pixels([ours.square(rgb)])[0], expected, atol=1e-6, rtol=0)


def test_a_random_crop_is_resized_by_the_same_filter() -> None:
    rgb = np.random.default_rng(2).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    views = {}
    for name in ("clip", "imagenet"):
        preprocess = make_preprocess(name, size_px=32, **OWN)  # type: ignore[arg-type]
        views[name] = preprocess.random_square(rgb, seed=4, crop_scale=(1.0, 1.0))
        assert views[name].shape == (32, 32, 3)
    assert not np.array_equal(views["clip"], views["imagenet"])
