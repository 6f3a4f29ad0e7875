"""Balanced sampling: what is repeated, how often, and from what it is drawn."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from uniemo_ray.training.sampling import Repeats, copy_id, plan_repeats

COUNTS = {("awe", "beach"): 60, ("awe", None): 20, ("fear", "forest"): 30, ("fear", "beach"): 2}


def table() -> pa.Table:
    rows = [
        {"image_id": f"{emotion}-{scene}-{i}", "emotion": emotion, "scene": scene, "number": i}
        for (emotion, scene), count in COUNTS.items()
        for i in range(count)
    ]
    return pa.Table.from_pylist(rows)


def counts(sampling: str, *, most: float = 100.0, seed: int = 0) -> NDArray[np.uint16]:
    return plan_repeats(table(), sampling, most=most, seed=seed)(table())


def sampled(sampling: str, *, most: float = 100.0, seed: int = 0) -> pa.Table:
    """Rows as often as they are seen."""
    times = counts(sampling, most=most, seed=seed)
    return table().take(pa.array(np.repeat(np.arange(len(times)), times)))


def test_natural_sampling_leaves_everything_as_it_is() -> None:
    assert sampled("natural").equals(table())


def test_emotions_become_equally_frequent_and_nothing_is_left_out() -> None:
    rows = sampled("emotion")
    seen = Counter(rows["emotion"].to_pylist())
    assert seen["awe"] == 80
    assert seen["fear"] == pytest.approx(80, abs=12)  # 32 images, each 2 or 3 times: 2.8 sd
    assert set(table()["image_id"].to_pylist()) <= set(rows["image_id"].to_pylist())


def test_attributes_become_equally_frequent_within_the_bound() -> None:
    rows = sampled("attribute", most=5.0)
    seen = Counter(zip(rows["emotion"].to_pylist(), rows["scene"].to_pylist(), strict=True))
    assert seen == {
        ("awe", "beach"): 60,
        ("awe", None): 60,
        ("fear", "forest"): 60,
        ("fear", "beach"): 10,
    }


def test_copies_have_ids_of_their_own() -> None:
    assert [copy_id("awe-1", copy) for copy in (1, 2)] == ["awe-1~1", "awe-1~2"]


def test_a_row_is_drawn_by_seed_and_id_alone() -> None:
    plan = plan_repeats(table(), "emotion", most=100.0, seed=3)
    halves = [plan(table().slice(0, 50)), plan(table().slice(50))]
    assert np.array_equal(np.concatenate(halves), plan(table()))
    assert not np.array_equal(counts("emotion", seed=1), counts("emotion", seed=2))


def test_a_group_without_a_plan_is_an_error() -> None:
    with pytest.raises(KeyError):
        Repeats("emotion", {"awe": 1.0}, 0)(table())
