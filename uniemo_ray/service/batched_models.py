"""The models of a replica: which are loaded, and how the items that wait share their batches."""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

from ray import serve

from uniemo_ray.accelerator import is_lost
from uniemo_ray.service.backend import DEFAULT_MODEL
from uniemo_ray.service.batch_queue import BatchQueue
from uniemo_ray.service.model_loader import ModelLoader
from uniemo_ray.service.pool import Pool
from uniemo_ray.service.workers.image_generator import ImageRequest
from uniemo_ray.service.workers.understander import DecodedImage

Model = TypeVar("Model", bound=Callable[..., Any])
Item = TypeVar("Item", DecodedImage, ImageRequest)
Result = TypeVar("Result")


def _no_settings(item: Any) -> None:
    """Any two items of a model share a batch."""


def _equal_work(item: Any) -> float:
    """Items run in the order in which they came."""
    return 0.0


class BatchedModels(Generic[Model, Item, Result]):
    """The models of a replica. The default one is loaded at the start, others on their first request.

    Items arrive one at a time, and one batch runs at a time.
    """

    def __init__(
        self,
        load: Callable[[str], Model],
        pool: Pool,
        *,
        settings: Callable[[Item], Hashable] = _no_settings,
        work: Callable[[Item], float] = _equal_work,
    ) -> None:
        """Load the default model.

        Args:
            load: loads the model of a name.
            pool: size of batches, and how many models to keep.
            settings: items with equal settings share a batch.
            work: what an item costs, in any unit; short work goes first.
        """
        self.default = load(DEFAULT_MODEL)  # a damaged folder fails here
        self.has_lost_accelerator = False
        loader = ModelLoader(load)

        async def load_other(name: str) -> Model:
            return await loader.get(name)

        # called here and not used as a decorator, because its argument is a setting
        self.others = serve.multiplexed(max_num_models_per_replica=pool.models_per_replica)(load_other)
        self.queue: BatchQueue[Item, Result] = BatchQueue(
            self._run_batch,
            batch_size=pool.batch_size,
            wait_s=pool.batch_wait_s,
            group=lambda item: (item.model, settings(item)),
            work=work,
        )

    async def get(self, name: str) -> Model:
        """The model of a name."""
        if name == DEFAULT_MODEL:
            return self.default
        model: Model = await self.others(name)
        return model

    async def run(self, item: Item) -> Result:
        """Run a model on an item, in a batch with others that wait."""
        return await self.queue.submit(item)

    def check_health(self) -> None:
        """Serve replaces a replica of which this raises.

        Raises:
            RuntimeError: a call has lost the accelerator, so every later one would fail as well, and at once.
        """
        if self.has_lost_accelerator:
            raise RuntimeError("this replica has lost its accelerator")

    async def _run_batch(self, items: Sequence[Item]) -> list[Result]:
        model = await self.get(items[0].model)
        try:
            results: list[Result] = await asyncio.to_thread(model, items)
        except Exception as error:
            self.has_lost_accelerator = self.has_lost_accelerator or is_lost(error)
            raise
        return results
