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
from uniemo_ray.service.api.metrics import Metrics
from uniemo_ray.service.api.metrics_snapshot import Peers
from uniemo_ray.service.api.problems import Problem, add_problem_handlers
from uniemo_ray.service.api.rate_limiter import RateLimiter
from uniemo_ray.service.api.state import Service
from uniemo_ray.service.backend import DEFAULT_MODEL, Backend, UnavailableError
from uniemo_ray.service.generations import GenerationStore
from uniemo_ray.service.settings import Limits
from uniemo_ray.service.tokens import TokenFile

logger = logging.getLogger(__name__)

SWEEP_INTERVAL_S = 300.0
EXCHANGE_INTERVAL_S = 3.0
"""How old the numbers of another endpoint replica may be at `/metrics`."""
DESCRIPTION = """Understand which emotions images evoke, and generate images that evoke one.

Every error is a JSON problem (RFC 9457). 429 and 503 carry `Retry-After`. The same generate request with a
seed gives the same bytes, whatever else the server does, as long as `/v1/model` shows the same
`fingerprint`, `micro_batch` and version."""


def make_api(
    backend: Backend,
    *,
    generation_store: GenerationStore,
    limits: Limits,
    tokens: TokenFile | None = None,
    models: Sequence[str] = (DEFAULT_MODEL,),
    peers: Peers | None = None,
) -> FastAPI:
    """The HTTP interface.

    Args:
        backend: answers the requests.
        generation_store: keeps generations.
        limits: of requests.
        tokens: who gets in; without, only this machine is served.
        models: names that requests may give.
        peers: the other replicas of this interface, if there are any.
    """
    app = FastAPI(
        title="UniEmo",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,  # FastAPI's own page loads scripts from elsewhere
        redoc_url=None,
        lifespan=_living,
    )
    service = Service(backend, limits, generation_store, tuple(models), Metrics(peers))
    rate_limiter = RateLimiter(limits)
    service.metrics.watch(active=lambda: rate_limiter.active, unfinished=service.unfinished.total)
    app.state.service = service
    app.add_middleware(BodyLimit, limits=limits)
    app.add_middleware(Guard, tokens=tokens, rate_limiter=rate_limiter, metrics=service.metrics)
    add_problem_handlers(app)
    for router in (
        understand.make_router(limits, models),
        generate.make_router(limits, models),
        generations.make_router(limits, models),
        about.make_router(models),
        page.make_router(),
    ):
        app.include_router(router)
    app.openapi = lambda: _openapi(app, needs_token=tokens is not None)  # type: ignore[method-assign]
    return app


@contextlib.asynccontextmanager
async def _living(app: FastAPI) -> AsyncIterator[None]:
    """What goes on as long as the application runs."""
    service: Service = app.state.service
    tasks = [asyncio.create_task(_sweep(service.generation_store))]
    if service.metrics.peers is not None:
        tasks.append(asyncio.create_task(_exchange(service.metrics)))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await service.backend.close()


async def _sweep(generation_store: GenerationStore) -> None:
    """Delete expired generations."""
    while True:
        try:
            count = await asyncio.to_thread(generation_store.sweep)
        except Exception as error:  # storage may come back, and the service goes on without sweeping
            logger.error("expired generations could not be deleted: %s", type(error).__name__)
        else:
            if count:
                logger.info("deleted %d expired generations", count)
        await asyncio.sleep(SWEEP_INTERVAL_S)


async def _exchange(metrics: Metrics) -> None:
    """Let the other replicas know our numbers."""
    while True:
        await asyncio.sleep(EXCHANGE_INTERVAL_S)
        with contextlib.suppress(UnavailableError):  # whoever asks for the numbers will be told
            await metrics.exchange()


def _openapi(app: FastAPI, *, needs_token: bool) -> dict[str, Any]:
    """The description, with the one problem schema in place of FastAPI's own error schemas."""
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
