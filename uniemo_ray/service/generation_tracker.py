"""Generations that this process has started, until each of them has ended."""

import asyncio
import logging
from collections.abc import Awaitable

from uniemo_ray.service.generations import INTERRUPTED, NOT_STORED, GenerationStore
from uniemo_ray.store.errors import StoreError

logger = logging.getLogger(__name__)


class GenerationTracker:
    """Keeps the tasks of generations, and records a failure for one that ends without a final state."""

    def __init__(self, generation_store: GenerationStore) -> None:
        self.generation_store = generation_store
        self.tasks: set[asyncio.Task[None]] = set()

    def start(self, generation_id: str, work: Awaitable[None]) -> "asyncio.Task[None]":
        """Run the work of a generation in a task. The task ends with the work, also when that fails."""
        task = asyncio.create_task(self._supervise(generation_id, work))
        self.tasks.add(task)  # the event loop itself keeps no task alive
        task.add_done_callback(self.tasks.discard)
        return task

    async def _supervise(self, generation_id: str, work: Awaitable[None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            await asyncio.to_thread(self.generation_store.fail_unfinished, generation_id)
            raise
        except Exception as error:
            logger.error("a generation ended with an error: %s", type(error).__name__)
            problem = NOT_STORED if isinstance(error, StoreError) else INTERRUPTED
            await asyncio.to_thread(self.generation_store.fail_unfinished, generation_id, problem)

    async def drain(self, *, within_s: float) -> None:
        """Wait for all generations; those that take longer are cancelled and recorded as failed."""
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=within_s)
        left = list(self.tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
