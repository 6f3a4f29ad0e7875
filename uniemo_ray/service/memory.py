"""The memory budget of an endpoint: what bodies in flight and decoded images may take together.

A body takes its share before it is read, and is refused if there is none. An image takes its share before it
is decoded, and waits for it. Bodies never take what the largest image needs, so one can always be decoded.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from uniemo_ray.service.decode_cost import MB, largest_decode_bytes
from uniemo_ray.service.settings import Limits


class _Waiting(NamedTuple):
    size: int
    ready: "asyncio.Future[None]"


class MemoryBudget:
    """Bytes that may be used at once. It belongs to one event loop."""

    def __init__(self, total: int, *, for_decoding: int) -> None:
        """Set the sizes.

        Args:
            total: bytes in all.
            for_decoding: bytes of the largest image, which bodies leave free.
        """
        self.total, self.for_decoding = total, for_decoding
        self.used, self.of_bodies = 0, 0
        self._waiting: deque[_Waiting] = deque()

    @classmethod
    def of(cls, limits: Limits) -> "MemoryBudget":
        """The budget of an endpoint with these limits."""
        return cls(limits.memory_mb * MB, for_decoding=largest_decode_bytes(limits.pixels))

    def take_for_body(self, size: int) -> bool:
        """Take bytes for a body, if there are any left for bodies."""
        if self.of_bodies + size > self.total - self.for_decoding or self.used + size > self.total:
            return False
        self.of_bodies += size
        self.used += size
        return True

    def give_back_body(self, size: int) -> None:
        """Return the bytes of a body."""
        self.of_bodies -= size
        self._give_back(size)

    @asynccontextmanager
    async def decoding(self, size: int) -> AsyncIterator[None]:
        """Take bytes for a decoding while the block runs. Waits until there are enough."""
        size = min(size, self.for_decoding)
        await self._take(size)
        try:
            yield
        finally:
            self._give_back(size)

    def _give_back(self, size: int) -> None:
        """Return bytes, and let those go on that have waited longest."""
        self.used -= size
        while self._waiting and self._fits(self._waiting[0].size):
            waiting = self._waiting.popleft()
            if not waiting.ready.done():
                self.used += waiting.size
                waiting.ready.set_result(None)

    async def _take(self, size: int) -> None:
        if not self._waiting and self._fits(size):
            self.used += size
            return
        waiting = _Waiting(size, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        try:
            await waiting.ready
        except asyncio.CancelledError:
            if waiting.ready.done() and not waiting.ready.cancelled():
                self._give_back(size)  # it was given while the caller left
            else:
                with suppress(ValueError):
                    self._waiting.remove(waiting)
                self._give_back(0)  # the next may need less
            raise

    def _fits(self, size: int) -> bool:
        return self.used + size <= self.total
