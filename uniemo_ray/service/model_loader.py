"""Loading of models in threads."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

Model = TypeVar("Model")


class ModelLoader(Generic[Model]):
    """Loads models in threads. Callers that wait for the same model share one load."""

    def __init__(self, load: Callable[[str], Model]) -> None:
        self.load = load
        self.tasks: dict[str, asyncio.Task[Model]] = {}

    async def get(self, name: str) -> Model:
        """Load the model of a name. A cancelled caller does not stop the load, and the next one shares it."""
        if name not in self.tasks:
            self.tasks[name] = asyncio.create_task(asyncio.to_thread(self.load, name))
        task = self.tasks[name]
        await asyncio.wait([task])
        self.tasks.pop(name, None)
        return task.result()
