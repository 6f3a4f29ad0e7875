import numpy as np
import pytest

from uniemo_ray.data.emosketch.labels import draw_label, image_rng, measure_brightness, measure_colorfulness

FIRST = [("fear", "street", "toy"), ("sadness", "cemetery", "house"), ("awe", "sky", "bench")]


def flat(*colour: int) -> np.ndarray:
    return np.full((4, 6, 3), colour, dtype=np.uint8)


def test_label_depends_on_seed_split_and_index() -> None:
    def labels(seed: int, split: str) -> list[object]:
        return [draw_label(image_rng(seed, split, i)) for i in range(30)]

    assert labels(0, "train") == labels(0, "train")
    assert labels(0, "train") != labels(1, "train") != labels(1, "test")


def test_first_labels_of_seed_0_stay_what_they_are() -> None:
    """A changed stream would silently make another data set under the same name."""
    found = [tuple(draw_label(image_rng(0, "train", i))) for i in range(3)]
    assert found == FIRST


@pytest.mark.parametrize(
    ("colour", "expected"),
    [((0, 0, 0), 0), ((255, 255, 255), 1), ((255, 0, 0), 0.299), ((0, 255, 0), 0.587), ((0, 0, 255), 0.114)],
)
def test_brightness_is_mean_luma(colour: tuple[int, int, int], expected: float) -> None:
    assert measure_brightness(flat(*colour)) == pytest.approx(expected)


def test_colorfulness_of_grey_is_zero_and_of_colours_is_hasler_and_suesstrunk() -> None:
    assert measure_colorfulness(np.random.default_rng(0).integers(0, 256, (8, 8, 1)).repeat(3, 2)) == 0
    # Flat red: no spread, mean (rg, yb) = (100, 50).
    assert measure_colorfulness(flat(100, 0, 0)) == pytest.approx(0.3 * np.hypot(100, 50) / 109)
    # Half red, half green: rg = +-80, yb = 40.
    halves = np.concatenate([flat(80, 0, 0), flat(0, 80, 0)])
    assert measure_colorfulness(halves) == pytest.approx((80 + 0.3 * 40) / 109)
    assert measure_colorfulness(np.concatenate([flat(255, 0, 0), flat(0, 255, 0)])) == 1
