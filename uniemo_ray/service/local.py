"""The whole service in one process without Ray, for a laptop, for work on the web page and for tests.

python -m uniemo_ray.service.local                     serves the shipped model
python -m uniemo_ray.service.local runs/demo/model
"""

import argparse
import asyncio
import socket
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
from uniemo_ray.service.memory import MemoryBudget
from uniemo_ray.service.request_log import log_to_stderr
from uniemo_ray.service.settings import STORE, Limits
from uniemo_ray.service.tokens import TokenFile
from uniemo_ray.service.workers.generation_task import execute_generation
from uniemo_ray.service.workers.image_generator import ImageGenerator, ImageRequest
from uniemo_ray.service.workers.model_registry import ModelRegistry, describe
from uniemo_ray.service.workers.understander import Understander
from uniemo_ray.shipped import SHIPPED
from uniemo_ray.store.filesystem import open_store

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class LocalBackend:
    """A model in this process. It does one piece of work at a time."""

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
        self.lock = asyncio.Lock()

    async def is_ready(self) -> bool:
        """Return True: the model was loaded before the server started."""
        return True

    async def describe(self, model: str) -> ModelDescription:
        """Describe the one model of this process."""
        return describe(self.image_generator)

    async def understand(self, images: Sequence[ImageInput]) -> list[ImageOutput | Refusal]:
        """Understand images in a thread, so that other requests are answered meanwhile."""
        async with self.memory.decoding(max(image.decode_bytes for image in images)):  # one after the other
            return await self._run_exclusively(self.understander.understand, images)

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
        work = execute_generation(
            generation_id,
            self.image_generator.image_requests(params),
            generate=self._generate_one,
            generation_store=self.generation_store,
            timeout_s=self.limits.generate_timeout_s,
        )
        return self.tracker.start(generation_id, work)

    async def close(self) -> None:
        """Cancel the generations: the user who stops this process does not want to wait."""
        await self.tracker.drain(within_s=0)

    async def _generate_one(self, image_request: ImageRequest) -> EncodedImage | Refusal:
        return (await self._run_exclusively(self.image_generator, [image_request]))[0]

    async def _run_exclusively(self, work: Callable[[Argument], Result], argument: Argument) -> Result:
        """Run work in a thread, one call at a time. A cancelled caller keeps the lock until its work ends."""
        async with self.lock:
            done = asyncio.ensure_future(asyncio.to_thread(work, argument))
            try:
                return await asyncio.shield(done)
            finally:
                await asyncio.wait([done])


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
        _check_port(host, port)
        limits = Limits()
        memory = MemoryBudget.of(limits)
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
    app = make_api(
        backend, generation_store=generation_store, limits=limits, tokens=token_file, memory=memory
    )
    log_to_stderr()
    uvicorn.run(app, host=host, port=port, access_log=False, server_header=False, log_config=None)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """`python -m uniemo_ray.service.local`."""
    options = _parse(arguments)
    return serve(
        options.model, host=options.host, port=options.port, tokens=options.tokens, store=options.store
    )


def _check_port(host: str, port: int) -> None:
    """Refuse an address that is taken or not this machine's, before a model is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server will
            probe.bind((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot listen on {host} port {port} ({reason}): give another --port") from None


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
