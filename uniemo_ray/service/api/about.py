"""`/v1/model`, `/healthz`, `/readyz`, `/metrics`."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import PlainTextResponse

from uniemo_ray.service.api.problems import ProblemError, problem_responses
from uniemo_ray.service.api.schemas import Schema, one_of
from uniemo_ray.service.api.state import service_of, within
from uniemo_ray.service.backend import DEFAULT_MODEL
from uniemo_ray.service.settings import RETRY_AFTER_S, Limits

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Defaults(Schema):
    """What holds where a generate request is silent."""

    steps: int
    guidance: float
    width: int
    height: int
    prompt: str


class ModelAnswer(Schema):
    """The model behind a name, and what may be asked of it."""

    model: str
    """The name."""
    models: list[str]
    """All names."""
    fingerprint: str
    """Of the model folder: equal fingerprints are equal models."""
    emotions: list[str]
    """In their fixed params."""
    paintable: list[str]
    """Those it can generate: it has seen images of them; none if it only understands."""
    defaults: Defaults
    pixels_multiple: int
    """Sides of generated images are multiples of it."""
    micro_batch: int
    """Images per pass of the sampler, part of what determines an image's bytes."""
    limits: Limits
    card: str
    """The model card, in Markdown."""
    uniemo_ray: str
    """Version of the software."""


class Health(Schema):
    """A short yes."""

    status: str


def make_router(models: Sequence[str]) -> APIRouter:
    """The routes, with the served models in their description."""
    router = APIRouter(tags=["about"])

    @router.get("/v1/model", responses=problem_responses(401, 403, 422, 429, 500, 503))
    async def model(
        request: Request,
        name: Annotated[one_of(models), Query(alias="model", description="Which.")] = DEFAULT_MODEL,  # type: ignore[valid-type]
    ) -> ModelAnswer:
        """The model card, what the model knows, and the limits of requests."""
        service = service_of(request)
        service.check_model(name)
        found = await within(service.limits.understand_timeout_s, service.backend.describe(name))
        entries: dict[str, Any] = vars(found) | {
            "model": name,
            "models": sorted(service.models),
            "limits": service.limits,
        }
        return ModelAnswer.model_validate(entries)

    @router.get("/healthz", responses=problem_responses(403, 503))
    async def health() -> Health:
        """Whether this process answers."""
        return Health(status="ok")

    @router.get("/readyz", responses=problem_responses(403, 503))
    async def ready(request: Request) -> Health:
        """Whether the models are there; busy ones are."""
        if not await service_of(request).backend.is_ready():
            raise ProblemError(503, "the models are not ready", retry_after_s=RETRY_AFTER_S)
        return Health(status="ready")

    @router.get(
        "/metrics",
        response_class=PlainTextResponse,
        responses={200: {"content": {METRICS_TYPE: {}}}, **problem_responses(401, 403, 429, 503)},
    )
    async def metrics(request: Request) -> PlainTextResponse:
        """Numbers of all endpoint replicas together, in Prometheus' text format."""
        return PlainTextResponse(await service_of(request).metrics.text(), media_type=METRICS_TYPE)

    return router
