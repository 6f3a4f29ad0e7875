"""The whole service in one process, without Ray: for a laptop, for work on the page, for tests.

python -m uniemo_ray.service.local                     the small model that is shipped
python -m uniemo_ray.service.local runs/demo/model
"""

import argparse
import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import uvicorn

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
from uniemo_ray.service.generation_tracker import GenerationTracker
from uniemo_ray.service.generations import GenerationStore
from uniemo_ray.service.settings import STORE, Limits
from uniemo_ray.service.tokens import TokenFile
from uniemo_ray.service.workers.generation_task import execute_generation
from uniemo_ray.service.workers.image_generator import ImageGenerator, ImageRequest
from uniemo_ray.service.workers.model_registry import ModelRegistry, describe
from uniemo_ray.service.workers.understander import Understander
from uniemo_ray.shipped import SHIPPED
from uniemo_ray.store.filesystem import open_store

A = TypeVar("A")
R = TypeVar("R")


class LocalBackend:
    """Models in this process, one piece of work at a time."""

    def __init__(
        self,
        understander: Understander,
        image_generator: ImageGenerator,
        *,
        generation_store: GenerationStore,
        limits: Limits,
    ) -> None:
        self.understander, self.image_generator = understander, image_generator
        self.generation_store, self.limits = generation_store, limits
        self.running = GenerationTracker(generation_store)
        self.turn = asyncio.Lock()

    async def is_ready(self) -> bool:
        """Loaded models are."""
        return True

    async def describe(self, model: str) -> ModelDescription:
        """There is one model."""
        return describe(self.image_generator)

    async def understand(self, images: Sequence[ImageInput]) -> list[ImageOutput | Refusal]:
        """In a thread, so that other requests are answered meanwhile."""
        return await self._alone(self.understander.understand, images)

    async def generate(self, params: GenerationParams) -> list[EncodedImage] | Refusal:
        """In a thread, one image after the other."""
        image_requests = self.image_generator.image_requests(params)
        if isinstance(image_requests, Refusal):
            return image_requests
        images = []
        try:
            for image_request in image_requests:
                image = await self._paint(image_request)
                if isinstance(image, Refusal):
                    return image
                images.append(image)
        finally:
            for image_request in image_requests:
                image_request.is_cancelled = True
        return images

    async def start(self, generation_id: str, params: GenerationParams) -> "asyncio.Task[None]":
        """As a task of this process."""
        work = execute_generation(
            generation_id,
            self.image_generator.image_requests(params),
            paint=self._paint,
            generation_store=self.generation_store,
            timeout_s=self.limits.generate_timeout_s,
        )
        return self.running.begin(generation_id, work)

    async def close(self) -> None:
        """Whoever stops this process does not want to wait."""
        await self.running.finish(within_s=0)

    async def _paint(self, image_request: ImageRequest) -> EncodedImage | Refusal:
        return (await self._alone(self.image_generator, [image_request]))[0]

    async def _alone(self, work: Callable[[A], R], argument: A) -> R:
        """In a thread, one after the other: the next one waits for the end also when a caller leaves."""
        async with self.turn:
            done = asyncio.ensure_future(asyncio.to_thread(work, argument))
            try:
                return await asyncio.shield(done)
            finally:
                await asyncio.wait([done])


def main(arguments: list[str] | None = None) -> int:
    """Entry point; errors are one line on standard error."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if options.tokens is None and not is_loopback(options.host):
            raise ValueError(f"refusing to bind to {options.host} without tokens: give --tokens FILE")
        tokens = None if options.tokens is None else TokenFile(options.tokens)
        limits = Limits()
        registry = ModelRegistry(models={DEFAULT_MODEL: options.model})
        model = registry.load(DEFAULT_MODEL)
        generation_store = GenerationStore(open_store(options.store), ttl_s=limits.result_ttl_s)
        backend = LocalBackend(
            registry.understander(model),
            registry.image_generator(model),
            generation_store=generation_store,
            limits=limits,
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    app = make_api(backend, generation_store=generation_store, limits=limits, tokens=tokens)
    uvicorn.run(app, host=options.host, port=options.port, access_log=False, server_header=False)
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="uniemo serve", description="Serve a model without Ray.")
    parser.add_argument("model", nargs="?", default=SHIPPED, help="model folder, local or s3://")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--tokens", type=Path, help="token file; needed beyond loopback")
    parser.add_argument("--store", default=STORE, help="where generations are kept, local or s3://")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
