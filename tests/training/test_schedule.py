import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniemo_ray.training.schedule import rate_factor, steps_per_epoch


def test_warmup_then_cosine_to_zero() -> None:
    factors = [rate_factor(step, total=14, warmup=4, kind="cosine") for step in range(14)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factors[9] == pytest.approx(0.5)
    assert rate_factor(14, total=14, warmup=4, kind="cosine") == pytest.approx(0.0)


def test_constant_stays_at_the_peak() -> None:
    assert [rate_factor(s, total=9, warmup=2, kind="constant") for s in (0, 1, 2, 8)] == [0.5, 1.0, 1.0, 1.0]


def test_a_run_shorter_than_the_warmup_still_reaches_the_peak() -> None:
    assert max(rate_factor(step, total=6, warmup=20, kind="cosine") for step in range(6)) == 1.0


@given(st.integers(1, 500), st.integers(0, 50), st.sampled_from(["constant", "cosine"]))
def test_factors_rise_then_never_rise_again(total: int, warmup: int, kind: str) -> None:
    factors = [rate_factor(step, total=total, warmup=warmup, kind=kind) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors[:-1])
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


@pytest.mark.parametrize(("rows", "batch", "steps"), [(80, 8, 10), (87, 8, 10), (88, 8, 11), (8, 8, 1)])
def test_an_epoch_has_full_batches_only(rows: int, batch: int, steps: int) -> None:
    assert steps_per_epoch(rows, batch_size=batch) == steps
