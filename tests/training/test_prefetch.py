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
