"""The whole service in one process without Ray, for a laptop, for work on the web page and for tests.

python -m uniemo_ray.service.local                     serves the shipped model
python -m uniemo_ray.service.local runs/demo/model
"""

import argparse
import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from uniemo_ray.service.api.app import make_api
from uniemo_ray.service.api.guard import is_loopback
from uniemo_ray.service.api.state import Service
from uniemo_ray.service.backend import (
    DEFAULT_MODEL,
    EncodedImage,
    GenerationParams,
    ImageInput,
    ImageOutput,
    ModelDescription,
    Refusal,
    UnavailableError,
)
from uniemo_ray.service.generation_tracker import GenerationTracker
from uniemo_ray.service.generations import GenerationStore
from uniemo_ray.service.memory import MemoryBudget
from uniemo_ray.service.model_thread import ModelThread
from uniemo_ray.service.port import check_port
from uniemo_ray.service.request_log import log_to_stderr
from uniemo_ray.service.settings import RETRY_AFTER_S, STORE, Limits
from uniemo_ray.service.tokens import TokenFile
from uniemo_ray.service.workers.generation_task import execute_generation
from uniemo_ray.service.workers.image_generator import ImageGenerator, ImageRequest
from uniemo_ray.service.workers.model_registry import ModelRegistry, describe
from uniemo_ray.service.workers.understander import Understander
from uniemo_ray.shipped import SHIPPED
from uniemo_ray.store.filesystem import open_store

logger = logging.getLogger(__name__)

CLOSE_S = 0.8
"""How long the end of the process waits until generations have recorded their end."""
LINGER_S = 0.7
"""How long the server still answers then, so that whoever watches can fetch the finished images."""
OPEN_REQUESTS_S = 1
"""How long requests that are still open are waited for."""


class LocalBackend:
    """A model in this process. It does one piece of work at a time.

    Understanding is quick, so it does not wait for images: it is done between two sampling steps.
    """

    def __init__(
        self,
        understander: Understander,
        image_generator: ImageGenerator,
        *,
        generation_store: GenerationStore,
        limits: Limits,
        memory: MemoryBudget | None = None,
    ) -> None:
        self.memory = memory or MemoryBudget.of(limits)
        self.understander, self.image_generator = understander, image_generator
        self.generation_store, self.limits = generation_store, limits
        self.tracker = GenerationTracker(generation_store)
        self.thread = ModelThread()
        if image_generator is not None:
            image_generator.between_steps = self.thread.run_urgent

    async def is_ready(self) -> bool:
        """Return True: the model was loaded before the server started."""
        return True

    async def describe(self, model: str) -> ModelDescription:
        """Describe the one model of this process."""
        return describe(self.image_generator)

    async def understand(self, images: Sequence[ImageInput]) -> list[ImageOutput | Refusal]:
        """Understand images, at the latest after the sampling step that runs."""
        async with self.memory.decoding(max(image.decode_bytes for image in images)):  # one after the other
            return await self.thread.run(self.understander.understand, images, is_urgent=True)

    async def generate(self, params: GenerationParams) -> list[EncodedImage] | Refusal:
        """Generate images in a thread, one after the other."""
        image_requests = self.image_generator.image_requests(params)
        if isinstance(image_requests, Refusal):
            return image_requests
        images = []
        try:
            for image_request in image_requests:
                image = await self._generate_one(image_request)
                if isinstance(image, Refusal):
                    return image
                images.append(image)
        finally:
            for image_request in image_requests:
                image_request.is_cancelled = True
        return images

    async def start(self, generation_id: str, params: GenerationParams) -> "asyncio.Task[None]":
        """Start a generation as a task of this process."""
        if self.thread.is_closed:
            raise UnavailableError("the server is stopping", retry_after_s=RETRY_AFTER_S)
        work = execute_generation(
            generation_id,
            self.image_generator.image_requests(params),
            generate=self._generate_one,
            generation_store=self.generation_store,
            timeout_s=self.limits.generate_timeout_s,
        )
        return self.tracker.start(generation_id, work)

    async def close(self) -> None:
        """Cancel all work: the user who stops this process does not want to wait.

        Images that are finished are kept.
        """
        try:
            await self.tracker.drain(within_s=0)
        finally:
            self.thread.close()

    async def _generate_one(self, image_request: ImageRequest) -> EncodedImage | Refusal:
        return (await self.thread.run(self.image_generator, [image_request]))[0]


class LocalServer(uvicorn.Server):
    """A server that ends within seconds: it ends its generations first, and lets their images be fetched."""

    def __init__(self, app: FastAPI, *, host: str, port: int, log_level: str | None = None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                log_level=log_level,
                access_log=False,
                server_header=False,
                log_config=None,  # its lines are JSON as well, see `log_to_stderr`
                timeout_graceful_shutdown=OPEN_REQUESTS_S,
            )
        )
        self.service: Service = app.state.service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the generations and their event streams, and then the server."""
        is_watched = bool(self.service.generation_tasks)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self.service.backend.close()
        self.service.closing.set()
        if is_watched:
            await asyncio.sleep(LINGER_S)
        await super().shutdown(sockets)


def serve(model: str, *, host: str, port: int, tokens: Path | None, store: str | None) -> int:
    """Serve a model until the process is stopped; errors are one line on standard error.

    Args:
        model: model folder, local or `s3://`.
        host: address to listen on.
        port: port to listen on.
        tokens: token file; required on any address but loopback.
        store: folder of generations, local or `s3://`; None for the default.

    Returns:
        The exit code.
    """
    try:
        if tokens is None and not is_loopback(host):
            raise ValueError(f"refusing to bind to {host} without tokens: give --tokens FILE")
        token_file = None if tokens is None else TokenFile(tokens)
        check_port(host, port)
        limits = Limits()
        memory = MemoryBudget.of(limits)
        print(f"loading the model {model} ...", flush=True)
        registry = ModelRegistry(models={DEFAULT_MODEL: model})
        loaded = registry.load(DEFAULT_MODEL)
        generation_store = GenerationStore(open_store(store or STORE), ttl_s=limits.result_ttl_s)
        backend = LocalBackend(
            registry.understander(loaded),
            registry.image_generator(loaded),
            generation_store=generation_store,
            limits=limits,
            memory=memory,
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    app = make_api(
        backend,
        generation_store=generation_store,
        limits=limits,
        tokens=token_file,
        emotions=loaded.parts.labels.labels,
        memory=memory,
    )
    log_to_stderr()
    with contextlib.suppress(KeyboardInterrupt):  # raised again when the server has ended
        LocalServer(app, host=host, port=port).run()
    gc.freeze()  # the process ends: looking through all objects of torch once more would take seconds
    return 0


def main(arguments: list[str] | None = None) -> int:
    """`python -m uniemo_ray.service.local`."""
    options = _parse(arguments)
    return serve(
        options.model, host=options.host, port=options.port, tokens=options.tokens, store=options.store
    )


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="uniemo serve", description="Serve a model without Ray.")
    parser.add_argument("model", nargs="?", default=SHIPPED, help="model folder, local or s3://")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--tokens", type=Path, help="token file; required on any address but loopback")
    parser.add_argument("--store", help="folder of generations, local or s3://")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
