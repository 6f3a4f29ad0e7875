"""Prepare the next batches in a thread, so that a step does not wait for decoding."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Raw = TypeVar("Raw")
Ready = TypeVar("Ready")


def prefetch(source: Iterable[Raw], prepare: Callable[[Raw], Ready], *, depth: int = 2) -> Iterator[Ready]:
    """Yield `prepare(item)` for each item, in order, computed ahead by one thread.

    An error of the source or of `prepare` is raised here, in place of its item. Leaving the loop early
    ends the thread.

    Args:
        source: Items; iterated in the thread.
        prepare: Runs in the thread.
        depth: Largest number of items ready ahead.
    """
    ready: queue.Queue[tuple[str, object]] = queue.Queue(maxsize=depth)
    is_left = threading.Event()

    def put(kind: str, value: object) -> None:
        while not is_left.is_set():
            try:
                return ready.put((kind, value), timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in source:
                put("item", prepare(item))
                if is_left.is_set():
                    return
            put("end", None)
        except BaseException as error:  # handed over and raised by the consumer
            put("error", error)

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if isinstance(value, BaseException):
                raise value
            yield value  # type: ignore[misc]
    finally:
        is_left.set()
        thread.join(timeout=5.0)
