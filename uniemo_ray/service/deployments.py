"""The Ray Serve deployments: thin shells around `api` and `workers`."""

import asyncio
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.context import _get_global_client

from uniemo_ray.service.api.app import make_api
from uniemo_ray.service.api.guard import is_loopback
from uniemo_ray.service.backend import (
    EncodedImage,
    GenerationParams,
    ImageInput,
    ImageOutput,
    ModelDescription,
    Refusal,
)
from uniemo_ray.service.batched_models import BatchedModels
from uniemo_ray.service.generations import GenerationStore
from uniemo_ray.service.handles import AggregatorPeers, Handle, HandleBackend
from uniemo_ray.service.inline_inference import InlineInference
from uniemo_ray.service.memory import MemoryBudget
from uniemo_ray.service.pool import Pool
from uniemo_ray.service.request_log import log_to_serve
from uniemo_ray.service.settings import Limits
from uniemo_ray.service.tokens import TokenFile
from uniemo_ray.service.workers.generation_task import execute_generation
from uniemo_ray.service.workers.image_generator import ImageGenerator, ImageRequest
from uniemo_ray.service.workers.model_registry import ModelRegistry, describe
from uniemo_ray.service.workers.understander import DecodedImage, Understander
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.text import one_line

logger = logging.getLogger(__name__)


class UnderstandingDeployment:
    """Understands images in batches. The next images are decoded while a batch runs."""

    def __init__(
        self, registry: ModelRegistry, pool: Pool, limits: Limits, memory: MemoryBudget | None = None
    ) -> None:
        registry.check_others()
        self.memory = memory or MemoryBudget.of(limits)
        self.models: BatchedModels[Understander, DecodedImage, ImageOutput] = BatchedModels(
            lambda name: registry.understander(registry.load(name, with_diffusion=False)), pool
        )
        self.decoders = ThreadPoolExecutor(max(1, round(pool.num_cpus)), "decoder")

    async def understand_one(self, image: ImageInput) -> ImageOutput | Refusal:
        """Understand one image, in a batch with others that wait."""
        understander = await self.models.get(image.model)
        loop = asyncio.get_running_loop()
        async with self.memory.decoding(image.decode_bytes):
            decoded = await loop.run_in_executor(self.decoders, understander.decode, image)
        return decoded if isinstance(decoded, Refusal) else await self.models.run(decoded)

    async def ping(self) -> None:
        """Return as soon as the model is loaded."""

    def check_health(self) -> None:
        """Asked by Serve; raises RuntimeError when the accelerator is lost."""
        self.models.check_health()


class GenerationDeployment:
    """Generates images in batches, and runs whole generations."""

    def __init__(self, registry: ModelRegistry, pool: Pool, limits: Limits, store: str) -> None:
        registry.check_others()
        self.limits = limits
        self.generation_store = GenerationStore(open_store(store), ttl_s=limits.result_ttl_s)
        self.models: BatchedModels[ImageGenerator, ImageRequest, EncodedImage | Refusal] = BatchedModels(
            lambda name: registry.image_generator(registry.load(name)),
            pool,
            settings=lambda request: request.settings,
            work=lambda request: request.settings.steps * request.settings.width * request.settings.height,
        )

    async def generate_one(self, params: GenerationParams) -> EncodedImage | Refusal:
        """Generate the first image. Cancelling the call stops the work on it."""
        image_requests = (await self.models.get(params.model)).image_requests(params)
        if isinstance(image_requests, Refusal):
            return image_requests
        try:
            return await self.models.run(image_requests[0])
        finally:
            image_requests[0].is_cancelled = True

    async def run_generation(self, generation_id: str, params: GenerationParams) -> None:
        """Run a whole generation and write its progress to the generation store."""
        await execute_generation(
            generation_id,
            (await self.models.get(params.model)).image_requests(params),
            generate=self.models.run,
            generation_store=self.generation_store,
            timeout_s=self.limits.generate_timeout_s,
        )

    async def describe(self, model: str) -> ModelDescription:
        """Describe the model of a name."""
        return describe(await self.models.get(model))

    async def ping(self) -> None:
        """Return as soon as the model is loaded."""

    def check_health(self) -> None:
        """Asked by Serve; raises RuntimeError when the accelerator is lost."""
        self.models.check_health()


@serve.ingress()
class Endpoint:
    """The HTTP API. If inline inference is on, it also understands images itself while it has room."""

    def __init__(
        self,
        understanding: Handle,
        generation: Handle,
        *,
        inline_inference: tuple[ModelRegistry, Pool] | None,
        registry: ModelRegistry,
        limits: Limits,
        store: str,
        tokens: str | None,
        aggregator: Handle | None = None,
    ) -> None:
        log_to_serve()
        self.memory = MemoryBudget.of(limits)
        self.tokens = check_exposure(tokens)
        inline = None if inline_inference is None else _load_inline(*inline_inference, limits, self.memory)
        self.inline = inline
        self.generation_store = GenerationStore(open_store(store), ttl_s=limits.result_ttl_s)
        self.backend = HandleBackend(
            understanding, generation, generation_store=self.generation_store, limits=limits, inline=inline
        )
        self.models, self.emotions, self.limits = tuple(registry.models), _emotions_of(registry), limits
        self.peers = None if aggregator is None else AggregatorPeers(aggregator)

    def check_health(self) -> None:
        """Asked by Serve; raises RuntimeError when the accelerator of inline inference is lost."""
        if self.inline is not None:
            self.inline.check_health()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve after the constructor."""
        return make_api(
            self.backend,
            generation_store=self.generation_store,
            limits=self.limits,
            tokens=self.tokens,
            models=self.models,
            emotions=self.emotions,
            peers=self.peers,
            memory=self.memory,
            sends_request_id=False,
            behind_haproxy=os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1",
        )


def _emotions_of(registry: ModelRegistry) -> tuple[str, ...] | None:
    """The emotions of all models, or None where an endpoint does not see their folders, as replicas do."""
    try:
        return registry.emotions()
    except (ValueError, OSError) as error:
        logger.warning("the description of requests does not list the emotions: %s", one_line(error))
        return None


def _load_inline(
    registry: ModelRegistry, pool: Pool, limits: Limits, memory: MemoryBudget
) -> InlineInference:
    """The work of a replica for understanding, in this process. A damaged folder stops the endpoint."""
    loaded = UnderstandingDeployment(registry, pool, limits, memory)
    return InlineInference(
        loaded.understand_one, max_images=pool.batch_size, check_health=loaded.check_health
    )


def check_exposure(tokens: str | None) -> TokenFile | None:
    """Read the token file, if there is one.

    Raises:
        ValueError: there is none, and Serve listens on an address that other machines can reach.
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
    """The address on which Serve's proxies listen; None without a Serve controller, as in tests."""
    client: Any = _get_global_client(raise_if_no_controller_running=False)  # Serve has no public function
    return None if client is None else str(client.http_config.host)
