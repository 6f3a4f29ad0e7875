"""What all routes share."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from fastapi import Request

from uniemo_ray.service.api.metrics import Metrics
from uniemo_ray.service.api.problems import ProblemError
from uniemo_ray.service.backend import Backend
from uniemo_ray.service.generations import GenerationStore
from uniemo_ray.service.settings import RETRY_AFTER_S, Limits

SMALL_BYTES = 250_000
"""What ordinary files of this size take, a millisecond, is done at once: a change of threads costs as much.
A file that is made to be slow, all of it tiny blocks, takes some tens."""
T = TypeVar("T")


@dataclass(frozen=True)
class Service:
    """Backend, limits and counts of one application."""

    backend: Backend
    limits: Limits
    generation_store: GenerationStore
    models: tuple[str, ...]
    """Names that requests may give."""
    metrics: Metrics = field(default_factory=Metrics)
    unfinished: Counter[str] = field(default_factory=Counter)
    """Generations by caller that were started here and are not known to be finished."""
    begun: dict[str, "asyncio.Task[None]"] = field(default_factory=dict)
    """These by id; each task ends with its generation."""

    def check_model(self, name: str) -> None:
        """Raise ProblemError for a model that is not served."""
        if name not in self.models:
            raise ProblemError(
                422, f"unknown model: expected one of {', '.join(sorted(self.models))}", field="model"
            )


def service_of(request: Request) -> Service:
    """The service that answers a request."""
    service: Service = request.app.state.service
    return service


def caller_of(request: Request) -> str:
    """Name of the caller's token, as the guard found it."""
    name: str = request.state.caller
    return name


async def aside(is_small: bool, work: Callable[..., T], *args: object) -> T:
    """The result of some work; in a thread, unless it is small."""
    return work(*args) if is_small else await asyncio.to_thread(work, *args)


async def within(timeout_s: float, work: Awaitable[T]) -> T:
    """The result of some work, which is cancelled when it takes too long. Raises ProblemError."""
    try:
        async with asyncio.timeout(timeout_s):
            return await work
    except TimeoutError:
        raise ProblemError(
            503, f"this took longer than {timeout_s:g} s", retry_after_s=RETRY_AFTER_S
        ) from None
