"""The state that all routes share."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from uniemo_ray.service.api.metrics import Metrics
from uniemo_ray.service.api.problems import ProblemError
from uniemo_ray.service.api.readiness import Readiness
from uniemo_ray.service.backend import Backend
from uniemo_ray.service.generations import GenerationStore
from uniemo_ray.service.settings import RETRY_AFTER_S, Limits

SMALL_BYTES = 250_000
"""Smaller inputs are processed in the event loop: an ordinary one takes a millisecond, about as much as a
change of threads."""
UPLOAD_THREADS = 2
T = TypeVar("T")


@dataclass(frozen=True)
class Service:
    """Backend, limits and counters of one application."""

    backend: Backend
    limits: Limits
    generation_store: GenerationStore
    models: tuple[str, ...]
    """Names of the served models."""
    readiness: Readiness
    metrics: Metrics = field(default_factory=Metrics)
    unfinished: Counter[str] = field(default_factory=Counter)
    """Number of unfinished generations per caller that were started in this process."""
    uploads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(UPLOAD_THREADS, "upload"))
    """Threads for the inspection of uploads, which nothing but uploads waits for."""
    generation_tasks: dict[str, "asyncio.Task[None]"] = field(default_factory=dict)
    """Unfinished generations of this process by id. A task ends when its generation does."""
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process is about to end and all its generations have ended."""

    def check_model(self, name: str) -> None:
        """Raise ProblemError if no model of this name is served."""
        if name not in self.models:
            raise ProblemError(
                422, f"unknown model: expected one of {', '.join(sorted(self.models))}", field="model"
            )


def service_of(request: Request) -> Service:
    """The state of the service that answers a request."""
    service: Service = request.app.state.service
    return service


def caller_of(request: Request) -> str:
    """Name of the caller's token, which the guard stored."""
    name: str = request.state.caller
    return name


async def run_upload(service: Service, is_small: bool, work: Callable[..., T], *args: object) -> T:
    """Run work on an upload in a thread for uploads, or in the event loop if it is small."""
    if is_small:
        return work(*args)
    return await asyncio.get_running_loop().run_in_executor(service.uploads, partial(work, *args))


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Await work and cancel it if the caller leaves. Raises ClientDisconnect then.

    The body of the request must have been read.
    """
    task, leaving = asyncio.ensure_future(work), asyncio.create_task(_wait_until_gone(request))
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for each in (task, leaving):
            each.cancel()
        await asyncio.gather(task, leaving, return_exceptions=True)


async def _wait_until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def with_timeout(timeout_s: float, work: Awaitable[T]) -> T:
    """Await work and cancel it if it takes too long. Raises ProblemError then."""
    try:
        async with asyncio.timeout(timeout_s):
            return await work
    except TimeoutError:
        raise ProblemError(
            503, f"the request took longer than {timeout_s:g} s", retry_after_s=RETRY_AFTER_S
        ) from None
