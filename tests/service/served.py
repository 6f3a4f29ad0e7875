"""A server of the whole service without Ray, in a thread of the test."""

import threading
from pathlib import Path

import uvicorn

from uniemo_ray.service.api.app import make_api
from uniemo_ray.service.generations import GenerationStore
from uniemo_ray.service.local import LocalBackend
from uniemo_ray.service.settings import Limits
from uniemo_ray.service.tokens import TokenFile
from uniemo_ray.service.workers.model_registry import ModelRegistry
from uniemo_ray.store.local import LocalStore


class Served:
    """A server that runs in a thread while the block runs."""

    def __init__(self, registry: ModelRegistry, folder: Path, *, tokens: TokenFile | None = None) -> None:
        generation_store = GenerationStore(LocalStore(folder), ttl_s=600)
        limits = Limits(requests_per_minute=100_000)
        model = registry.load("default")
        backend = LocalBackend(
            registry.understander(model),
            registry.image_generator(model),
            generation_store=generation_store,
            limits=limits,
        )
        app = make_api(
            backend,
            generation_store=generation_store,
            limits=limits,
            tokens=tokens,
            emotions=registry.emotions(),
        )
        self.server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
        self.thread = threading.Thread(target=self.server.run)

    def __enter__(self) -> str:
        self.thread.start()
        while not self.server.started:
            self.thread.join(0.05)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.server.force_exit = True
        self.thread.join(30)
