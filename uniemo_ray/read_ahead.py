"""Read the next items in threads while the caller works on the ones before."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Raw = TypeVar("Raw")
Ready = TypeVar("Ready")
THREADS = min(8, os.cpu_count() or 1)
"""Threads that decode images; Pillow lets them run at the same time."""
BATCHES = 2
"""How many batches are decoded ahead."""


def read_ahead(
    items: Iterable[Raw], read: Callable[[Raw], Ready], *, ahead: int, threads: int = THREADS
) -> Iterator[Ready]:
    """Yield `read(item)` for each item, in order; an error comes in place of its item.

    Args:
        items: iterated in the caller's thread.
        read: runs in threads.
        ahead: largest number of items that are read and not asked for yet.
        threads: how many.
    """
    waiting: deque[Future[Ready]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="read") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(read, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def read_batches(items: Iterable[Raw], read: Callable[[Raw], Ready], *, size: int) -> Iterator[list[Ready]]:
    """Lists of `size` results of `read`, fewer at the end; the next two are read meanwhile."""
    return batches(read_ahead(items, read, ahead=BATCHES * size), size)


def batches(items: Iterable[Ready], size: int) -> Iterator[list[Ready]]:
    """Lists of `size` items, fewer at the end."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
