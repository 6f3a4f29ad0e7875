"""What was begun without an end."""

from uniemo_ray.store.attempts import begin, count_attempts, end
from uniemo_ray.store.fence import LeaseFence
from uniemo_ray.store.filesystem import Store


def test_beginnings_are_counted_until_an_end(store: Store) -> None:
    assert [begin(store, "images/part-0") for _ in range(3)] == [0, 1, 2]
    assert begin(store, "images/part-0/row-7") == 0
    assert count_attempts(store, "images/part-0") == 3
    assert count_attempts(store, "images/part-0/row-7") == 1
    assert begin(store, "images/part-00") == 0
    end(store, "images/part-0")
    assert store.list() == ["attempts/images~part-00@00000000-0001"]


def test_a_killed_driver_is_no_rows_fault(store: Store) -> None:
    for epoch in (1, 2):
        fenced = store.sub("generate")
        fenced.fence = LeaseFence(store, epoch)
        assert [begin(fenced, "images/part-0/row-7") for _ in range(2)] == [0, 1]
    end(fenced, "images/part-0/row-7")
    assert store.list() == []
