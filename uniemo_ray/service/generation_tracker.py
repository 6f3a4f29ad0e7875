"""Generations that this process has begun, and answers for until they have ended."""

import asyncio
import logging
from collections.abc import Awaitable

from uniemo_ray.service.generations import GenerationStore

logger = logging.getLogger(__name__)


class GenerationTracker:
    """Keeps what was begun; one that ends without a last report of its painter gets one here."""

    def __init__(self, generation_store: GenerationStore) -> None:
        self.generation_store = generation_store
        self.tasks: set[asyncio.Task[None]] = set()

    def begin(self, generation_id: str, work: Awaitable[None]) -> "asyncio.Task[None]":
        """A task that ends with the work, whatever becomes of it."""
        task = asyncio.create_task(self._answer_for(generation_id, work))
        self.tasks.add(task)  # the loop itself keeps no task alive
        task.add_done_callback(self.tasks.discard)
        return task

    async def _answer_for(self, generation_id: str, work: Awaitable[None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            await asyncio.to_thread(self.generation_store.lose, generation_id)
            raise
        except Exception as error:
            logger.error("a generation was lost: %s", type(error).__name__)
            await asyncio.to_thread(self.generation_store.lose, generation_id)

    async def finish(self, *, within_s: float) -> None:
        """Let everything end; what has not by then is given up, and says so."""
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=within_s)
        left = list(self.tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
