import dataclasses

import numpy as np
import pytest

from uniemo_ray.data.emosketch.compose import draw_layout, render, to_svg
from uniemo_ray.data.emosketch.rule import load_rule

RULE = load_rule()


def layout(seed: int, scene: str | None = "beach", object_: str | None = "boat"):
    return draw_layout(np.random.default_rng(seed), scene=scene, object_=object_)


@pytest.mark.parametrize(
    ("scene", "object_"), [(RULE.scenes[i % 16], RULE.objects[i]) for i in range(24)], ids=lambda name: name
)
def test_every_scene_and_object_is_drawn(scene: str, object_: str) -> None:
    whole = dataclasses.replace(layout(1, scene, object_), clutter_before=(), noise=0.0)
    bare = dataclasses.replace(whole, object=None)
    with_object, without = render(whole, size_px=32), render(bare, size_px=32)
    assert with_object.shape == (32, 32, 3)
    assert with_object.dtype == np.uint8
    assert without.std() > 5
    changed = (with_object != without).any(axis=2).mean()
    assert 0.02 < changed < 0.8


def test_a_picture_is_a_function_of_its_layout() -> None:
    assert np.array_equal(render(layout(3), size_px=48), render(layout(3), size_px=48))
    assert not np.array_equal(render(layout(3), size_px=48), render(layout(4), size_px=48))


def test_size_changes_resolution_not_the_picture() -> None:
    still = dataclasses.replace(layout(5), noise=0.0)
    small, large = render(still, size_px=32), render(still, size_px=128)
    shrunk = large.reshape(32, 4, 32, 4, 3).mean(axis=(1, 3))
    assert np.abs(shrunk - small).mean() < 6


def test_missing_parts() -> None:
    assert layout(0, None, "boat").object is not None
    assert layout(0, "beach", None).object is None
    assert "<svg" in to_svg(layout(0, None, None))


def test_no_pixel_gives_the_scene_away() -> None:
    """Pictures of one scene differ from each other about as much as a picture does from other scenes."""
    same = np.stack([render(layout(i, "park", "toy"), size_px=32) for i in range(8)]).astype(float)
    assert same.std(axis=0).mean() > 12
