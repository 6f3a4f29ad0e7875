"""A cached value that is fetched again when it is old."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class CachedValue(Generic[T]):
    """The last value of a function. All callers share one refresh."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[T]],
        *,
        fresh_s: float,
        patience_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Fetch nothing yet.

        Args:
            fetch: returns the value, or raises.
            fresh_s: age up to which the value is not fetched again.
            patience_s: how long callers wait for a new value while there is an old one.
            clock: seconds.
        """
        self.fetch, self.fresh_s, self.patience_s, self.clock = fetch, fresh_s, patience_s, clock
        self.cached: tuple[float, T] | None = None
        self.refresh: asyncio.Task[None] | None = None
        self.refreshed_at = 0.0

    async def get(self) -> T:
        """The value; an old one if a new one takes too long. Raises what `fetch` raises if there is none."""
        now = self.clock()
        if self.cached is not None and now - self.cached[0] < self.fresh_s:
            return self.cached[1]
        if self.refresh is None or self.refresh.done():
            self.refresh, self.refreshed_at = asyncio.create_task(self._fetch()), now
            self.refresh.add_done_callback(_retrieve_error)
        if self.cached is None:
            await asyncio.shield(self.refresh)  # other callers wait for it too
        else:
            await asyncio.wait([self.refresh], timeout=max(0.0, self.refreshed_at + self.patience_s - now))
        assert self.cached is not None
        return self.cached[1]

    async def _fetch(self) -> None:
        value = await self.fetch()
        self.cached = self.clock(), value


def _retrieve_error(task: "asyncio.Task[None]") -> None:
    """Keep asyncio from logging the error of a refresh for which no caller waited."""
    if not task.cancelled():
        task.exception()
