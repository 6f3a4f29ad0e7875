"""Chan's streaming moments against numpy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniemo_ray.statistics.moments import Moments


@given(
    st.integers(0, 2**31),
    st.lists(st.integers(0, 9), min_size=1, max_size=8),
    st.floats(-1e4, 1e4),
    st.randoms(),
)
def test_parts_merged_in_any_order_agree_with_numpy(
    seed: int, sizes: list[int], offset: float, random: object
) -> None:
    rng = np.random.default_rng(seed)
    batches = [rng.normal(loc=offset, scale=3, size=(size, 4)) for size in sizes]
    everything = np.concatenate(batches)
    parts = [Moments.of(batch) for batch in batches]
    random.shuffle(parts)  # type: ignore[attr-defined]
    total = Moments.empty(4)
    for part in parts:
        total = part.merge(total)
    assert total.count == len(everything)
    if len(everything):
        np.testing.assert_allclose(total.mean, everything.mean(axis=0), rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(total.std(), everything.std(axis=0), rtol=1e-8, atol=1e-8)


def test_update_equals_merge_and_agrees_to_1e_10() -> None:
    rows = np.random.default_rng(0).normal(size=(1000, 5)) + 3
    running = Moments.empty(5)
    for start in range(0, 1000, 7):
        running.update(rows[start : start + 7])
    np.testing.assert_allclose(running.mean, rows.mean(axis=0), atol=1e-10)
    np.testing.assert_allclose(running.std(), rows.std(axis=0), atol=1e-10)


def test_a_large_mean_does_not_drown_the_variance() -> None:
    """Naive sums of squares in float64 lose every digit here."""
    rows = np.array([[1e9], [1e9 + 1], [1e9 + 2]])
    total = Moments.of(rows[:1]).merge(Moments.of(rows[1:]))
    assert total.std()[0] == pytest.approx(np.sqrt(2 / 3), rel=1e-9)


def test_float32_rows_are_summed_in_float64() -> None:
    rows = np.full((10, 1), 16_777_217.0, dtype=np.float64)
    assert Moments.of(rows).mean[0] == 16_777_217.0
    assert Moments.of(np.ones((3, 2), dtype=np.float32)).mean.dtype == np.float64


def test_merged_moments_are_those_of_older_runs_to_the_last_bit() -> None:
    rng = np.random.default_rng(7)
    total, count, mean, m2 = Moments.empty(5), 0, np.zeros(5), np.zeros(5)
    for size in (3, 0, 17, 1):
        part = Moments.of(rng.normal(loc=50, size=(size, 5)))
        total, both = total.merge(part), count + part.count
        delta = part.mean - mean
        mean = mean + delta * (part.count / both)
        m2 = m2 + part.m2 + np.square(delta) * (count * part.count / both)
        count = both
    assert total.count == count == 21
    assert np.array_equal(total.mean, mean)
    assert np.array_equal(total.m2, m2)


def test_two_empty_parts_merge_to_an_empty_one() -> None:
    nothing = Moments.empty(2).merge(Moments.empty(2))
    assert (nothing.count, nothing.mean.tolist(), nothing.std().tolist()) == (0, [0, 0], [0, 0])


def test_merge_leaves_its_parts_alone() -> None:
    first, second = Moments.of([[1.0]]), Moments.of([[3.0]])
    assert first.merge(second).mean[0] == 2.0
    assert (first.count, first.mean[0], second.count, second.mean[0]) == (1, 1.0, 1, 3.0)


def test_bad_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        Moments.of([[np.nan]])
    with pytest.raises(ValueError, match=r"\(B, D\)"):
        Moments.of([1.0])
    with pytest.raises(ValueError, match="width 1, got 2"):
        Moments.of([[1.0]]).merge(Moments.of([[1.0, 2.0]]))
