"""Prepare the next items in threads, so that a step does not wait for decoding."""

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Raw = TypeVar("Raw")
Ready = TypeVar("Ready")


def prefetch(
    source: Iterable[Raw], prepare: Callable[[Raw], Ready], *, depth: int = 2, threads: int = 1
) -> Generator[Ready]:
    """Yield `prepare(item)` for each item, in order, computed ahead by threads.

    An error of the source or of `prepare` is raised here, in place of its item. Leaving the loop early
    ends the threads and closes the source.

    Args:
        source: Items; iterated in a thread of its own.
        prepare: Runs in one of `threads` threads.
        depth: Largest number of items ahead, ready or not.
        threads: How many items are prepared at the same time.
    """
    ahead: queue.Queue[Future[Ready] | None] = queue.Queue(maxsize=depth)
    is_left = threading.Event()

    def put(item: Future[Ready] | None) -> None:
        while not is_left.is_set():
            try:
                return ahead.put(item, timeout=0.1)
            except queue.Full:
                continue

    def feed() -> None:
        try:
            for item in source:
                put(pool.submit(prepare, item))
                if is_left.is_set():
                    break
            put(None)
        except BaseException as error:  # handed over and raised by the consumer
            failed: Future[Ready] = Future()
            failed.set_exception(error)
            put(failed)
        finally:
            if isinstance(source, Generator):
                source.close()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
    feeder = threading.Thread(target=feed, name="prefetch-feed", daemon=True)
    feeder.start()
    try:
        while (future := ahead.get()) is not None:
            yield future.result()
    finally:
        is_left.set()
        feeder.join(timeout=5.0)
        pool.shutdown(wait=True, cancel_futures=True)
