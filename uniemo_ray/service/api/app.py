"""The FastAPI application over a backend."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from uniemo_ray import __version__
from uniemo_ray.service.api import about, generate, generations, page, understand
from uniemo_ray.service.api.body import BodyLimit
from uniemo_ray.service.api.guard import Guard
from uniemo_ray.service.api.http_habits import HttpHabits
from uniemo_ray.service.api.metrics import Metrics
from uniemo_ray.service.api.metrics_snapshot import Peers
from uniemo_ray.service.api.problems import Problem, add_problem_handlers
from uniemo_ray.service.api.rate_limiter import RateLimiter
from uniemo_ray.service.api.readiness import Readiness
from uniemo_ray.service.api.state import Service
from uniemo_ray.service.backend import DEFAULT_MODEL, Backend, UnavailableError
from uniemo_ray.service.generations import GenerationStore
from uniemo_ray.service.memory import MemoryBudget
from uniemo_ray.service.settings import Limits
from uniemo_ray.service.tokens import TokenFile

logger = logging.getLogger(__name__)

DELETE_INTERVAL_S = 300.0
RECORD_INTERVAL_S = 2.0
EXCHANGE_INTERVAL_S = 3.0
"""How old the metrics of another endpoint replica may be at `/metrics`."""
DESCRIPTION = """Understand which emotions images evoke, and generate images that evoke chosen emotions.

Every error is a JSON problem (RFC 9457). Responses with status 429 and 503 carry `Retry-After`. Equal
generate requests with a seed give equal bytes under any load, as long as `/v1/model` shows the same
`fingerprint`, `micro_batch` and version."""


def make_api(
    backend: Backend,
    *,
    generation_store: GenerationStore,
    limits: Limits,
    tokens: TokenFile | None = None,
    models: Sequence[str] = (DEFAULT_MODEL,),
    emotions: Sequence[str] | None = None,
    peers: Peers | None = None,
    memory: MemoryBudget | None = None,
    sends_request_id: bool = True,
    behind_haproxy: bool = False,
) -> FastAPI:
    """Build the HTTP API.

    Args:
        backend: answers the requests.
        generation_store: keeps generations.
        limits: limits of requests.
        tokens: the valid tokens. Without them, only this machine is served.
        models: names of the served models.
        emotions: those of all served models together. None where they are not known here: then the model
            that a request names checks them.
        peers: the other endpoint replicas, if there are any.
        memory: the budget of this process, which a backend that decodes images shares. None: one of its own.
        sends_request_id: whether responses get the header `X-Request-ID`. Serve sends it by itself.
        behind_haproxy: whether `head/haproxy.py` is in front. It names the caller's address in a header.
    """
    app = FastAPI(
        title="UniEmo",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,  # FastAPI's own page loads scripts from elsewhere
        redoc_url=None,
        lifespan=_lifespan,
    )
    readiness = Readiness(backend, generation_store, only_default=len(models) == 1)
    service = Service(backend, limits, generation_store, tuple(models), readiness, Metrics(peers))
    rate_limiter = RateLimiter(limits)
    service.metrics.watch(active=lambda: rate_limiter.active, unfinished=service.unfinished.total)
    app.state.service = service
    app.add_middleware(BodyLimit, limits=limits, memory=memory or MemoryBudget.of(limits))
    app.add_middleware(HttpHabits)
    app.add_middleware(
        Guard,
        tokens=tokens,
        rate_limiter=rate_limiter,
        metrics=service.metrics,
        sends_request_id=sends_request_id,
        behind_haproxy=behind_haproxy,
    )
    add_problem_handlers(app)
    for router in (
        understand.make_router(limits, models),
        generate.make_router(limits, models, emotions),
        generations.make_router(limits, models, emotions),
        about.make_router(models),
        page.make_router(),
    ):
        app.include_router(router)
    app.openapi = lambda: _openapi(app, needs_token=tokens is not None)  # type: ignore[method-assign]
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run the background tasks while the application runs, and close the backend afterwards."""
    service: Service = app.state.service
    tasks = [
        asyncio.create_task(_delete_expired(service.generation_store)),
        asyncio.create_task(_record_failures(service.generation_store)),
    ]
    if service.metrics.peers is not None:
        tasks.append(asyncio.create_task(_exchange(service.metrics)))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await service.backend.close()
        service.uploads.shutdown(wait=False)


async def _delete_expired(generation_store: GenerationStore) -> None:
    """Delete expired generations at regular intervals."""
    while True:
        try:
            count = await asyncio.to_thread(generation_store.delete_expired)
        except Exception as error:  # the service goes on, and storage may come back
            logger.error("expired generations could not be deleted: %s", type(error).__name__)
        else:
            if count:
                logger.info("deleted %d expired generations", count)
        await asyncio.sleep(DELETE_INTERVAL_S)


async def _record_failures(generation_store: GenerationStore) -> None:
    """Write the ends of generations that the store refused, as soon as it takes them."""
    while True:
        await asyncio.sleep(RECORD_INTERVAL_S)
        if generation_store.unrecorded:
            await asyncio.to_thread(generation_store.record_failures)


async def _exchange(metrics: Metrics) -> None:
    """Report this replica's metrics to the other replicas at regular intervals."""
    while True:
        await asyncio.sleep(EXCHANGE_INTERVAL_S)
        with contextlib.suppress(UnavailableError):  # a request for the metrics reports the error
            await metrics.exchange()


def _openapi(app: FastAPI, *, needs_token: bool) -> dict[str, Any]:
    """The OpenAPI description, with the problem schema in place of FastAPI's own error schemas."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        schemas = schema["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        schemas["Problem"] = Problem.model_json_schema()
        if needs_token:
            schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            for path, operations in schema["paths"].items():
                if path not in ("/healthz", "/readyz"):
                    for operation in operations.values():
                        operation["security"] = [{"token": []}]
        app.openapi_schema = schema
    return app.openapi_schema
