"""Answers that are asked for often and change seldom."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class CachedValue(Generic[T]):
    """The last answer to a question, which is asked again now and then, once for all who wait."""

    def __init__(
        self,
        ask: Callable[[], Awaitable[T]],
        *,
        fresh_s: float,
        patience_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask nothing yet.

        Args:
            ask: gives the answer, or raises.
            fresh_s: how long an answer is not asked for again.
            patience_s: how long a new answer is waited for where there is an old one.
            clock: seconds.
        """
        self.ask, self.fresh_s, self.patience_s, self.clock = ask, fresh_s, patience_s, clock
        self.found: tuple[float, T] | None = None
        self.asking: asyncio.Task[None] | None = None
        self.asked_at = 0.0

    async def get(self) -> T:
        """The answer, as far as can be known soon. Raises what asking raises, unless there is an old one."""
        now = self.clock()
        if self.found is not None and now - self.found[0] < self.fresh_s:
            return self.found[1]
        if self.asking is None or self.asking.done():
            self.asking, self.asked_at = asyncio.create_task(self._ask()), now
            self.asking.add_done_callback(_look_at)
        if self.found is None:
            await asyncio.shield(self.asking)  # others wait for it too
        else:
            await asyncio.wait([self.asking], timeout=max(0.0, self.asked_at + self.patience_s - now))
        assert self.found is not None
        return self.found[1]

    async def _ask(self) -> None:
        answer = await self.ask()
        self.found = self.clock(), answer


def _look_at(task: "asyncio.Task[None]") -> None:
    """Nobody may have waited for it: an error that nobody looks at would be logged as such."""
    if not task.cancelled():
        task.exception()
