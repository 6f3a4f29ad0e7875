"""Decoding runs ahead of the model, in order, and no further than it may."""

import threading
import time

import pytest

from uniemo_ray.read_ahead import BATCHES, read_ahead, read_batches


def test_order_and_values_are_those_of_a_map() -> None:
    assert list(read_ahead(range(50), lambda x: x * x, ahead=7)) == [x * x for x in range(50)]
    assert list(read_ahead([], str, ahead=7)) == []
    assert list(read_batches(range(7), str, size=3)) == [["0", "1", "2"], ["3", "4", "5"], ["6"]]


def test_an_error_comes_in_place_of_its_item() -> None:
    def read(item: int) -> int:
        if item == 2:
            raise OSError("bad picture")
        return item

    items = read_ahead(range(5), read, ahead=4)
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(OSError, match="bad picture"):
        next(items)


def test_no_more_is_read_than_wanted_ahead() -> None:
    seen: list[int] = []
    items = read_ahead(range(100), lambda x: seen.append(x) or x, ahead=4)
    for expected in range(3):
        assert next(items) == expected
    time.sleep(0.1)
    assert len(seen) == 3 + 4
    items.close()


def test_decoding_and_forward_overlap() -> None:
    size, count, read_s, forward_s = 4, 10, 0.02, 0.1
    threads: set[threading.Thread] = set()

    def read(item: int) -> int:
        threads.add(threading.current_thread())
        time.sleep(read_s)
        return item

    busy, started = 0.0, time.monotonic()
    for _ in read_batches(range(size * count), read, size=size):
        begun = time.monotonic()
        time.sleep(forward_s)
        busy += time.monotonic() - begun
    assert threading.current_thread() not in threads
    assert BATCHES == 2
    assert busy / (time.monotonic() - started) > 0.8  # 0.56 one after the other
