"""The paired interval: coverage on simulated studies, signs, and how many seeds would be needed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniemo_ray.experiments.paired import compare, components, mean_interval, seeds_needed, t_quantile

TRIALS, RESAMPLES = 200, 200


def simulated(
    generator: np.random.Generator, *, seeds: int, images: int, seed: float, image: float, rest: float
) -> np.ndarray:
    """Differences (S, M) with mean 0.3 and these standard deviations."""
    return (
        0.3
        + seed * generator.normal(size=(seeds, 1))
        + image * generator.normal(size=(1, images))
        + rest * generator.normal(size=(seeds, images))
    )


@pytest.mark.parametrize(
    ("images", "seed", "image", "rest"),
    [(100, 0, 0, 1), (100, 1, 0, 1), (100, 0.1, 0.3, 1), (100, 0.02, 1, 0.1), (1, 1, 0, 0)],
    ids=["images alone", "seeds alone", "both", "the same images", "one number per seed"],
)
@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_holds_the_truth_as_often_as_it_says(seeds, images, seed, image, rest):
    generator, held = np.random.default_rng(7), 0
    for trial in range(TRIALS):
        table = simulated(generator, seeds=seeds, images=images, seed=seed, image=image, rest=rest)
        found = compare(table, np.zeros_like(table), random_seed=trial, resamples=RESAMPLES)
        held += found.low <= 0.3 <= found.high
    # 0.95 less three standard errors of the simulation, and never a useless width that always holds it
    assert 0.90 <= held / TRIALS <= 1.0


def test_a_plain_bootstrap_over_five_seeds_would_be_too_narrow():
    generator, held = np.random.default_rng(7), 0
    for _ in range(TRIALS):
        values = 0.3 + generator.normal(size=5)
        drawn = values[generator.integers(0, 5, size=(RESAMPLES, 5))].mean(axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        held += low <= 0.3 <= high
    assert held / TRIALS < 0.90


TABLES = st.tuples(st.integers(2, 6), st.integers(1, 12), st.integers(0, 10_000))


@given(TABLES)
def test_the_sign_is_that_of_left_minus_right(shape):
    seeds, images, number = shape
    generator = np.random.default_rng(number)
    left, right = generator.integers(0, 2, size=(2, seeds, images)).astype(float)
    found, other = compare(left, right, resamples=50), compare(right, left, resamples=50)
    assert found.mean == pytest.approx(float(left.mean() - right.mean()))
    assert found.mean == pytest.approx(-other.mean)
    assert (found.low, found.high) == pytest.approx((-other.high, -other.low), abs=1e-9)
    assert found.low <= found.mean + 1e-12
    assert found.mean <= found.high + 1e-12


@given(TABLES)
def test_equal_arms_are_never_told_apart(shape):
    seeds, images, number = shape
    table = np.random.default_rng(number).normal(size=(seeds, images))
    found = compare(table, table)
    assert (found.mean, found.low, found.high, found.seeds_needed) == (0.0, 0.0, 0.0, None)


@given(TABLES, st.floats(-3, 3))
def test_a_shift_of_one_arm_shifts_the_interval(shape, shift):
    seeds, images, number = shape
    left, right = np.random.default_rng(number).normal(size=(2, seeds, images))
    plain, moved = compare(left, right, resamples=50), compare(left + shift, right, resamples=50)
    assert moved.low - plain.low == pytest.approx(shift, abs=1e-6)
    assert moved.high - plain.high == pytest.approx(shift, abs=1e-6)


def test_pairing_by_image_makes_intervals_narrow():
    generator = np.random.default_rng(3)
    hard = generator.normal(size=(1, 500))  # images that are hard for both arms alike
    left = hard + 0.05 * generator.normal(size=(5, 500))
    right = hard + 0.05 * generator.normal(size=(5, 500))
    paired = compare(left, right)
    alone = mean_interval(left.mean(axis=1))
    assert paired.high - paired.low < 0.02
    assert alone[2] - alone[1] < 0.02  # over seeds alone; over images it would be 0.18
    assert np.sqrt(components(left).of_mean) * 2 * 1.96 > 0.15


@pytest.mark.parametrize("table", [np.zeros((1, 10)), np.zeros((1, 1))])
def test_one_seed_has_no_interval(table):
    with pytest.raises(ValueError, match="two seeds or more, got 1"):
        compare(table, table)


def test_tables_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\)"):
        compare(np.zeros((2, 3)), np.zeros((2, 4)))


def test_seeds_needed_agree_with_the_interval():
    generator = np.random.default_rng(11)
    table = 0.4 + generator.normal(size=(5, 1))
    needed = seeds_needed(float(table.mean()), components(table), images=1)
    assert needed is not None
    spread = np.sqrt(components(table).seed)
    assert t_quantile(needed - 1) * spread / np.sqrt(needed) < table.mean()
    assert t_quantile(needed - 2) * spread / np.sqrt(needed - 1) >= table.mean()


def test_no_number_of_seeds_helps_where_the_test_images_decide():
    generator = np.random.default_rng(5)
    table = (
        0.01 + np.repeat(generator.normal(size=(1, 50)), 4, axis=0) + 0.01 * generator.normal(size=(4, 50))
    )
    table += 0.01 - table.mean()
    assert compare(table, np.zeros_like(table)).seeds_needed is None


def test_mean_interval_is_students():
    mean, low, high = mean_interval(np.array([1.0, 2.0, 3.0]))
    assert (mean, low, high) == pytest.approx((2.0, 2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-5)
