import threading
import time
from collections.abc import Iterator

import pytest

from uniemo_ray.training.prefetch import prefetch


def test_order_and_values_are_those_of_a_map() -> None:
    assert list(prefetch(range(50), lambda x: x * x)) == [x * x for x in range(50)]
    assert list(prefetch([], str)) == []


def test_items_are_prepared_ahead_in_another_thread() -> None:
    threads = []

    def prepare(item: int) -> int:
        threads.append(threading.current_thread())
        return item

    items = prefetch(range(3), prepare, depth=3)
    assert next(items) == 0
    deadline = time.monotonic() + 5
    while len(threads) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(threads) == 3
    assert threading.current_thread() not in threads
    items.close()


def test_an_error_comes_in_place_of_its_item() -> None:
    def prepare(item: int) -> int:
        if item == 2:
            raise ValueError("bad picture")
        return item

    items = prefetch(range(5), prepare)
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(ValueError, match="bad picture"):
        next(items)


def test_an_error_of_the_source_is_raised() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("lost")

    items = prefetch(source(), str)
    assert next(items) == "1"
    with pytest.raises(OSError, match="lost"):
        next(items)


def test_leaving_early_ends_the_thread() -> None:
    before = threading.active_count()
    items = prefetch(iter(int, 1), str)  # an endless source
    assert next(items) == "0"
    items.close()
    assert threading.active_count() == before


def test_several_threads_prepare_at_the_same_time_and_keep_the_order() -> None:
    together = threading.Barrier(3, timeout=10)

    def prepare(item: int) -> int:
        together.wait()  # passes when three items are under way
        time.sleep(0.01 * (item % 3))
        return item

    assert list(prefetch(range(30), prepare, depth=4, threads=3)) == list(range(30))


def test_no_more_is_under_way_than_asked_for() -> None:
    begun: list[int] = []
    items = prefetch(iter(int, 1), begun.append, depth=3, threads=2)
    next(items)
    time.sleep(0.3)
    assert len(begun) <= 6  # one given out, three waiting, one that the feeder holds
    items.close()


def test_a_source_that_is_left_early_is_closed() -> None:
    closed = threading.Event()

    def source() -> Iterator[int]:
        try:
            yield from iter(int, 1)
        finally:
            closed.set()

    items = prefetch(source(), str)
    next(items)
    items.close()
    assert closed.is_set()
