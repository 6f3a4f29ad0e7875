"""Two shards in one process: while one uses the device, another is read, encoded or committed."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

AT_ONCE = 2
"""Shards of one process: one on the device, and one before or behind it."""


class Lanes:
    """Who may work in a process at the same time.

    One shard at a time has the device. A shard that may have killed a process works alone, so that no other
    one is blamed for its deaths.
    """

    def __init__(self) -> None:
        self.device = threading.Lock()
        """Held while a shard uses the model."""
        self._change = threading.Condition()
        self._inside, self._waiting_alone, self._is_taken = 0, 0, False
        self._last_lap = 0.0

    @contextmanager
    def inside(self, *, alone: bool) -> Iterator[None]:
        """Wait for a place; with `alone` until no other shard has one."""
        with self._change:
            if alone:
                self._waiting_alone += 1
                self._change.wait_for(lambda: not self._inside)
                self._waiting_alone -= 1
                self._is_taken = True
            else:
                self._change.wait_for(lambda: not (self._is_taken or self._waiting_alone))
            self._inside += 1
        try:
            yield
        finally:
            with self._change:
                self._inside -= 1
                self._is_taken = self._is_taken and not alone
                self._change.notify_all()

    def lap(self, started: float) -> float:
        """Seconds that a shard took, without those that count for the shard before it.

        Args:
            started: when its work began, by `time.monotonic`.
        """
        with self._change:
            since, self._last_lap = max(started, self._last_lap), time.monotonic()
            return self._last_lap - since
