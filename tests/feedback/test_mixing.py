"""Mixing generated images into the training set."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniemo_ray.feedback.mixing import Kept, check_apart, mix

REAL = 80
KEPT = [Kept(f"kept{i}", f"images/part-{i % 3}") for i in range(50)]


def test_a_fifth_of_the_mixed_set_is_synthetic() -> None:
    mixture = mix(REAL, KEPT, fraction=0.2, seed=0)
    assert (mixture.real, mixture.wanted, mixture.available) == (80, 20, 50)
    assert len(mixture.synthetic) == 20
    assert mixture.fraction == 0.2
    assert set(mixture.synthetic) < set(KEPT)


def test_too_few_kept_images_are_all_taken_and_the_share_says_so() -> None:
    mixture = mix(REAL, KEPT[:5], fraction=0.2, seed=0)
    assert mixture.synthetic == tuple(sorted(KEPT[:5], key=lambda image: (image.shard, image.image_id)))
    assert mixture.wanted == 20
    assert mixture.fraction == pytest.approx(5 / 85)


def test_the_choice_depends_on_the_seed_and_not_on_the_order() -> None:
    shuffled = random.Random(1).sample(KEPT, len(KEPT))
    assert mix(REAL, KEPT, fraction=0.2, seed=0) == mix(REAL, shuffled, fraction=0.2, seed=0)
    assert mix(REAL, KEPT, fraction=0.2, seed=0) != mix(REAL, KEPT, fraction=0.2, seed=1)


@given(st.floats(0, 0.99), st.floats(0, 0.99), st.integers(0, 5))
def test_a_larger_fraction_keeps_what_a_smaller_one_chose(a: float, b: float, seed: int) -> None:
    small, large = (set(mix(REAL, KEPT, fraction=f, seed=seed).synthetic) for f in sorted((a, b)))
    assert small <= large


def test_zero_takes_none() -> None:
    mixture = mix(REAL, KEPT, fraction=0.0, seed=0)
    assert (mixture.synthetic, mixture.fraction) == ((), 0.0)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\), got 1.0"):
        mix(REAL, KEPT, fraction=1.0, seed=0)
    with pytest.raises(ValueError, match="repeated"):
        mix(REAL, [*KEPT, KEPT[0]], fraction=0.9, seed=0)
    with pytest.raises(ValueError, match=r"both real and generated.*'real3'"):
        check_apart([*KEPT, Kept("real3", "images/part-0")], [["real1"], ["real2", "real3"]])
    check_apart(KEPT, [["real1"], ["real2"]])


def test_of_nothing_there_is_no_share() -> None:
    mixture = mix(0, KEPT, fraction=0.2, seed=0)
    assert (mixture.synthetic, mixture.real, mixture.fraction) == ((), 0, 0.0)
