"""Models on their way into memory."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

Model = TypeVar("Model")


class ModelLoader(Generic[Model]):
    """Loads models in threads, each once, whoever waits."""

    def __init__(self, load: Callable[[str], Model]) -> None:
        self.load = load
        self.tasks: dict[str, asyncio.Task[Model]] = {}

    async def get(self, name: str) -> Model:
        """The model of a name. When the caller leaves, loading goes on, and the next one finds it."""
        if name not in self.tasks:
            self.tasks[name] = asyncio.create_task(asyncio.to_thread(self.load, name))
        task = self.tasks[name]
        await asyncio.wait([task])
        self.tasks.pop(name, None)
        return task.result()
