"""Work that waits for one model: which of it runs next, and what shares a batch."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

OVERTAKEN_S = 10.0
"""Longest time for which an item lets shorter work go first."""


@dataclass(eq=False)
class _Waiting(Generic[Item, Result]):
    """An item, when it came, and where its caller waits for the result."""

    item: Item
    since: float
    result: "asyncio.Future[Result]"


class BatchQueue(Generic[Item, Result]):
    """Runs items in batches, one batch at a time.

    A batch holds items of one group. It is filled when the last batch has ended, so that items gather while
    it runs. Short work goes first, but an item that has waited for OVERTAKEN_S lets nothing go before it. A
    batch that fails takes no other batch along.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        batch_size: int,
        wait_s: float = 0.0,
        group: Callable[[Item], Hashable],
        work: Callable[[Item], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start empty.

        Args:
            run: runs a batch; one result per item, in order.
            batch_size: most items of a batch.
            wait_s: how long a batch that is not full waits for more items.
            group: items of equal groups can share a batch.
            work: what an item costs, in any unit.
            clock: seconds.
        """
        self.run, self.batch_size, self.wait_s = run, batch_size, wait_s
        self.group, self.work, self.clock = group, work, clock
        self._waiting: list[_Waiting[Item, Result]] = []
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Result:
        """The result of an item. An item whose caller is cancelled before its batch begins does not run.

        Raises:
            Exception: what `run` has raised for its batch.
        """
        waiting: _Waiting[Item, Result] = _Waiting(
            item, self.clock(), asyncio.get_running_loop().create_future()
        )
        self._waiting.append(waiting)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._empty())
        return await waiting.result  # a cancelled caller cancels it

    async def _empty(self) -> None:
        while self._waiting:
            await self._fill()
            batch = self._take()
            if not batch:
                continue
            try:
                results = await self.run([waiting.item for waiting in batch])
                for waiting, result in zip(batch, results, strict=True):
                    if not waiting.result.done():
                        waiting.result.set_result(result)
            except Exception as error:
                for waiting in batch:
                    if not waiting.result.done():
                        waiting.result.set_exception(error)

    async def _fill(self) -> None:
        """Let items come that are on their way; a batch that is not full waits a little longer."""
        await asyncio.sleep(0)
        oldest = min(waiting.since for waiting in self._waiting)
        missing_s = self.wait_s - (self.clock() - oldest)
        if missing_s > 0 and len(self._waiting) < self.batch_size:
            await asyncio.sleep(missing_s)

    def _take(self) -> list[_Waiting[Item, Result]]:
        """Remove the next batch from what waits; empty when nobody waits any more."""
        self._waiting = [waiting for waiting in self._waiting if not waiting.result.done()]
        if not self._waiting:
            return []
        group = self.group(min(self._waiting, key=self._turn).item)
        fitting = [waiting for waiting in self._waiting if self.group(waiting.item) == group]
        batch = fitting[: self.batch_size]
        self._waiting = [waiting for waiting in self._waiting if waiting not in batch]
        return batch

    def _turn(self, waiting: _Waiting[Item, Result]) -> tuple[bool, float, float]:
        """Sort key: who has waited too long, then little work, then who came first."""
        is_late = self.clock() - waiting.since >= OVERTAKEN_S
        return not is_late, 0.0 if is_late else self.work(waiting.item), waiting.since
