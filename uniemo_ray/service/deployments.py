"""The three Ray Serve deployments: thin shells around the `api` and the `workers`."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, TypeVar

from fastapi import FastAPI
from ray import serve
from ray.serve.context import _get_global_client

from uniemo_ray.service.api.app import make_api
from uniemo_ray.service.api.guard import is_loopback
from uniemo_ray.service.backend import (
    DEFAULT_MODEL,
    EncodedImage,
    GenerationParams,
    ImageInput,
    ImageOutput,
    ModelDescription,
    Refusal,
)
from uniemo_ray.service.generations import GenerationStore
from uniemo_ray.service.handles import Handle, HandleBackend, HandlePeers
from uniemo_ray.service.inline_inference import InlineInference
from uniemo_ray.service.model_loader import ModelLoader
from uniemo_ray.service.pool import Pool
from uniemo_ray.service.settings import Limits
from uniemo_ray.service.tokens import TokenFile
from uniemo_ray.service.workers.generation_task import execute_generation
from uniemo_ray.service.workers.image_generator import ImageGenerator, ImageRequest
from uniemo_ray.service.workers.model_registry import ModelRegistry, describe
from uniemo_ray.service.workers.understander import DecodedImage, Understander
from uniemo_ray.store.filesystem import open_store

Model = TypeVar("Model", bound=Callable[..., Any])
Item = TypeVar("Item", DecodedImage, ImageRequest)
Result = TypeVar("Result")


class Loaded(Generic[Model, Item, Result]):
    """The models of a replica: the default one from the start, others when they are asked for.

    Work comes one item at a time and is done in batches of what has arrived, one batch at a time.
    """

    def __init__(self, load: Callable[[str], Model], pool: Pool) -> None:
        self.first = load(DEFAULT_MODEL)  # a bad folder fails right here
        self.turn = asyncio.Lock()
        loader = ModelLoader(load)

        async def load_other(name: str) -> Model:
            return await loader.get(name)

        # made here and not as decorators, because their numbers are settings
        self.others = serve.multiplexed(max_num_models_per_replica=pool.models_per_replica)(load_other)
        batched = serve.batch(max_batch_size=pool.batch_size, batch_wait_timeout_s=pool.batch_wait_s)
        self.soon: Any = batched(self._together)

    async def get(self, name: str) -> Model:
        """The model of a name."""
        if name == DEFAULT_MODEL:
            return self.first
        model: Model = await self.others(name)
        return model

    async def work(self, item: Item) -> Result:
        """What its model makes of an item, together with others that wait."""
        result: Result = await self.soon(item)
        return result

    async def _together(self, items: list[Item]) -> list[Result]:
        results: dict[int, Result] = {}
        for name in {item.model for item in items}:
            chosen = [i for i, item in enumerate(items) if item.model == name]
            model = await self.get(name)
            async with self.turn:
                found = await asyncio.to_thread(model, [items[i] for i in chosen])
            results |= zip(chosen, found, strict=True)
        return [results[i] for i in range(len(items))]


class Understanding:
    """Looks at images, in batches of whatever has arrived; decodes the next ones meanwhile."""

    def __init__(self, registry: ModelRegistry, pool: Pool) -> None:
        registry.check_others()
        self.models: Loaded[Understander, DecodedImage, ImageOutput] = Loaded(
            lambda name: registry.understander(registry.load(name, with_diffusion=False)), pool
        )
        self.decoders = ThreadPoolExecutor(max(1, round(pool.num_cpus)), "decoder")

    async def look(self, image: ImageInput) -> ImageOutput | Refusal:
        """One image, together with others that wait."""
        understander = await self.models.get(image.model)
        view = await asyncio.get_running_loop().run_in_executor(self.decoders, understander.view, image)
        return view if isinstance(view, Refusal) else await self.models.work(view)

    async def ping(self) -> None:
        """Answers when the model is loaded."""


class Generation:
    """Paints images, in batches of whatever has arrived; runs whole generations."""

    def __init__(self, registry: ModelRegistry, pool: Pool, limits: Limits, store: str) -> None:
        registry.check_others()
        self.limits = limits
        self.generation_store = GenerationStore(open_store(store), ttl_s=limits.result_ttl_s)
        self.models: Loaded[ImageGenerator, ImageRequest, EncodedImage | Refusal] = Loaded(
            lambda name: registry.image_generator(registry.load(name)), pool
        )

    async def paint(self, params: GenerationParams) -> EncodedImage | Refusal:
        """The first image of an params. When the caller goes away, the painter stops."""
        image_requests = (await self.models.get(params.model)).image_requests(params)
        if isinstance(image_requests, Refusal):
            return image_requests
        try:
            return await self.models.work(image_requests[0])
        finally:
            image_requests[0].is_cancelled = True

    async def run(self, generation_id: str, params: GenerationParams) -> None:
        """A whole generation, reported on the generation store."""
        image_requests = (await self.models.get(params.model)).image_requests(params)
        timeout_s = self.limits.generate_timeout_s
        await execute_generation(
            generation_id,
            image_requests,
            paint=self.models.work,
            generation_store=self.generation_store,
            timeout_s=timeout_s,
        )

    async def describe(self, model: str) -> ModelDescription:
        """The model behind a name."""
        return describe(await self.models.get(model))

    async def ping(self) -> None:
        """Answers when the model is loaded."""


@serve.ingress()
class Endpoint:
    """The HTTP interface; understands pictures itself, if told to, while it has room for them."""

    def __init__(
        self,
        understanding: Handle,
        generation: Handle,
        *,
        inline_inference: tuple[ModelRegistry, Pool] | None,
        models: tuple[str, ...],
        limits: Limits,
        store: str,
        tokens: str | None,
        aggregator: Handle | None = None,
    ) -> None:
        _log_requests()
        self.tokens = check_exposure(tokens)
        inline = None if inline_inference is None else _inline_inference(*inline_inference)
        self.generation_store = GenerationStore(open_store(store), ttl_s=limits.result_ttl_s)
        self.backend = HandleBackend(
            understanding, generation, generation_store=self.generation_store, limits=limits, inline=inline
        )
        self.models, self.limits = models, limits
        self.peers = None if aggregator is None else HandlePeers(aggregator)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve after the constructor."""
        return make_api(
            self.backend,
            generation_store=self.generation_store,
            limits=self.limits,
            tokens=self.tokens,
            models=self.models,
            peers=self.peers,
        )


def _inline_inference(registry: ModelRegistry, pool: Pool) -> InlineInference:
    """What a replica for understanding does, here; with a bad folder the endpoint does not come up."""
    return InlineInference(Understanding(registry, pool).look, most=pool.batch_size)


def _log_requests() -> None:
    """Let our own lines reach the replica's log, and no library's."""
    ours = logging.getLogger("uniemo_ray.service")
    ours.setLevel(logging.INFO)
    if not ours.handlers:
        ours.addHandler(logging.StreamHandler())


def check_exposure(tokens: str | None) -> TokenFile | None:
    """The token file, if there is one.

    Raises:
        ValueError: there is none, and Serve listens to more than this machine.
    """
    if tokens is not None:
        return TokenFile(Path(tokens))
    host = _http_host()
    if host is not None and not is_loopback(host):
        raise ValueError(
            f"refusing to serve on {host} without tokens: "
            "set http_options.host to 127.0.0.1, or tokens to a file"
        )
    return None


def _http_host() -> str | None:
    """Where Serve's proxies listen; None without a Serve controller, as in tests."""
    client: Any = _get_global_client(raise_if_no_controller_running=False)  # Serve has no public way to ask
    return None if client is None else str(client.http_config.host)
