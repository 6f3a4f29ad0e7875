"""Work of a thread that goes on beside other work, and ends with it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def beside(work: Callable[[threading.Event], None], *, name: str, within_s: float) -> Iterator[None]:
    """Run `work` in a thread while the block runs.

    Args:
        work: gets an event that is set when the block has ended; then it should end soon.
        name: of the thread.
        within_s: how long the end of the block waits for it.
    """
    is_over = threading.Event()
    thread = threading.Thread(target=work, args=(is_over,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(timeout=within_s)
