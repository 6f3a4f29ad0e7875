"""Interim results in a store."""

from itertools import pairwise

import pyarrow as pa
import pytest

from uniemo_ray.feedback.ranking.scratch import once, read_all_arrays, read_arrays, write_arrays
from uniemo_ray.store.filesystem import open_store


@pytest.fixture
def scratch(tmp_path):
    return open_store(str(tmp_path))


def test_work_is_done_once(scratch):
    done = []
    for _ in range(2):
        assert once(scratch, "step/1", lambda: done.append("x") or {"rows": [1]}) == {"rows": [1]}
    assert done == ["x"]


def test_work_that_fails_is_not_recorded(scratch):
    with pytest.raises(ZeroDivisionError):
        once(scratch, "step/1", lambda: 1 / 0)
    assert once(scratch, "step/1", lambda: 5) == 5


@pytest.mark.parametrize("kind", [pa.large_string(), pa.uint64()])
def test_slices_are_read_one_by_one(scratch, kind):
    values = [str(number) for number in range(10)] if kind == pa.large_string() else list(range(10))
    array = pa.array(values, kind)
    for key, parts in {"a": (0, 3, 3, 10), "b": (0, 0, 7, 9)}.items():
        slices = [array[first:end] for first, end in pairwise(parts)]
        write_arrays(scratch, key, slices, kind)
    assert [found.to_pylist() for found in read_arrays(scratch, ["b", "a"], 2)] == [values[7:9], values[3:]]
    assert [found.to_pylist() for found in read_all_arrays(scratch, "a")] == [values[:3], [], values[3:]]
    assert read_arrays(scratch, [], 0) == []


def test_empty_slices_take_no_room(scratch, tmp_path):
    array = pa.array([f"image-{number:06d}" for number in range(10_000)], pa.large_string())
    empty = [array[5000:5000]] * 20
    write_arrays(scratch, "some", [*empty, array], array.type)
    assert (tmp_path / "some").stat().st_size < 1.1 * array.nbytes
