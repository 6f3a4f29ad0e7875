"""Sorting in parts against sorting at once."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniemo_ray.feedback.ranking.external_sort import (
    choose_splitters,
    cut,
    find_repeated,
    merge,
    sample_step,
    sort_keys,
    take_samples,
)

numbers = st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=60)
texts = st.lists(st.text("ab0é字\U0001f600\0", max_size=4), unique=True, max_size=60)


def check(keys, kind, *, runs, limit, random):
    """Every key's place by the external sort is its place in the sorted list; no partition is too large."""
    random.shuffle(keys)
    parts = [pa.array(keys[number::runs], kind) for number in range(runs)]
    ordered = [part.take(pa.array(sort_keys(part))) for part in parts]
    step = sample_step(limit=limit, runs=runs)
    splitters = choose_splitters([take_samples(run, step) for run in ordered], step=step, limit=limit)
    slices = [cut(run, splitters) for run in ordered]
    found, start = {}, 0
    for partition in zip(*slices, strict=True):
        merged = merge(partition)
        assert merged.repeated is None
        for run, positions in zip(partition, merged.positions, strict=True):
            found |= dict(zip(run.to_pylist(), (start + positions).tolist(), strict=True))
        size = sum(map(len, partition))
        assert size <= limit
        start += size
    assert found == {key: place for place, key in enumerate(sorted(keys))}


@given(numbers, st.integers(1, 5), st.integers(1, 80), st.randoms())
def test_numbers(keys, runs, limit, random):
    check(keys, pa.uint64(), runs=runs, limit=limit, random=random)


@given(texts, st.integers(1, 5), st.integers(1, 80), st.randoms())
def test_texts_by_code_points(keys, runs, limit, random):
    check(keys, pa.large_string(), runs=runs, limit=limit, random=random)


@pytest.mark.parametrize("limit", [1000, 4321])
def test_the_limit_holds_for_crowded_keys_with_steps_between_samples(limit):
    rng = np.random.default_rng(0)
    keys = np.unique((rng.random(40_000) ** 9 * 2**63).astype(np.uint64))
    runs = [pa.array(keys[number::7]) for number in range(7)]
    step = sample_step(limit=limit, runs=7)
    assert step > 1
    splitters = choose_splitters([take_samples(run, step) for run in runs], step=step, limit=limit)
    sizes = np.sum([[len(part) for part in cut(run, splitters)] for run in runs], axis=0)
    assert sizes.max() <= limit
    assert sizes.sum() == len(keys)
    assert len(sizes) < 1.5 * len(keys) / limit  # and they are not much smaller than they may be


def test_places_take_four_bytes_as_a_task_holds_millions():
    merged = merge([pa.array([1, 4], pa.uint64()), pa.array([2], pa.uint64())])
    assert [run.tolist() for run in merged.positions] == [[0, 2], [1]]
    assert all(run.dtype == np.uint32 for run in merged.positions)


def test_repeated_keys_are_found():
    assert find_repeated(pa.array([], pa.uint64())) is None
    assert find_repeated(pa.array(["a", "b", "b"])) == "b"
    assert find_repeated(pa.array(["a", "a", "b"])) == "a"
    assert merge([pa.array(["a", "c"]), pa.array(["b", "c"])]).repeated == "c"
    assert merge([pa.array(["a", "c"]), pa.array(["b", "d"])]).repeated is None
