"""`/v1/model`, `/healthz`, `/readyz`, `/metrics`."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse

from uniemo_ray.emotions import Valence
from uniemo_ray.service.api.problems import ProblemError, problem_responses
from uniemo_ray.service.api.schemas import MODEL_QUERY, Schema, one_of, side_multiple
from uniemo_ray.service.api.state import service_of, with_timeout
from uniemo_ray.service.backend import DEFAULT_MODEL
from uniemo_ray.service.settings import RETRY_AFTER_S, Limits

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class GenerationDefaults(Schema):
    """Values of a generate request that does not name them."""

    steps: int
    """Sampling steps."""
    guidance: float
    """Guidance scale."""
    width: int
    """Width in pixels."""
    height: int
    """Height in pixels."""
    prompt: str
    """Prompt, with `{}` in place of the emotion."""


class ModelResponse(Schema):
    """A model, and the limits of requests to it."""

    model: str
    """Name of this model."""
    models: list[str]
    """Names of all served models."""
    fingerprint: str
    """Fingerprint of the model folder. Models with equal fingerprints are equal."""
    emotions: list[str]
    """Emotions that the model can recognise, in their fixed order."""
    valences: dict[str, Valence]
    """Valence of every emotion that has one."""
    paintable: list[str]
    """Emotions that the model can generate, because training had images of them. A model that only
    understands has none."""
    defaults: GenerationDefaults
    """Values of a generate request that does not name them."""
    pixels_multiple: int
    """Width and height of generated images must be multiples of it."""
    micro_batch: int
    """Images per pass of the sampler. It affects the bytes of images."""
    limits: Limits
    """Limits of requests."""
    trained_on: str
    """Pictures that the model has seen in training; empty if its card does not say. It knows no others."""
    scenes: list[str]
    """The scenes that the model can name."""
    objects: list[str]
    """The objects that the model can name."""
    card: str
    """The model card, in Markdown."""
    uniemo_ray: str
    """Version of the server."""


class Health(Schema):
    """The state of the server."""

    status: str
    """`ok` or `ready`."""


def make_router(models: Sequence[str]) -> APIRouter:
    """Build the routes, with the served models in their description."""
    router = APIRouter(tags=["about"])

    @router.get("/v1/model", responses=problem_responses(401, 403, 422, 429, 500, 503))
    async def model(
        request: Request,
        name: Annotated[one_of(models), MODEL_QUERY] = DEFAULT_MODEL,  # type: ignore[valid-type]
    ) -> ModelResponse:
        """Describe a model: its card, its emotions, its defaults and the limits of requests."""
        service = service_of(request)
        service.check_model(name)
        found = await with_timeout(service.limits.understand_timeout_s, service.backend.describe(name))
        entries: dict[str, Any] = vars(found) | {
            "model": name,
            "models": sorted(service.models),
            "limits": service.limits,
            "pixels_multiple": side_multiple(found.pixels_multiple),
        }
        return ModelResponse.model_validate(entries)

    @router.get("/healthz", responses=problem_responses(403, 503))
    async def health() -> Health:
        """Check that this process answers."""
        return Health(status="ok")

    @router.get("/readyz", responses=problem_responses(403, 503))
    async def ready(request: Request) -> Health:
        """Check that the models answer and that generations can be stored. A busy model is ready."""
        problem = await service_of(request).readiness.problem()
        if problem is not None:
            raise ProblemError(503, problem, retry_after_s=RETRY_AFTER_S)
        return Health(status="ready")

    @router.get(
        "/metrics",
        response_class=PlainTextResponse,
        responses={200: {"content": {METRICS_TYPE: {}}}, **problem_responses(401, 403, 429, 503)},
    )
    async def metrics(request: Request) -> PlainTextResponse:
        """Metrics of all endpoint replicas together, in the text format of Prometheus."""
        return PlainTextResponse(await service_of(request).metrics.text(), media_type=METRICS_TYPE)

    return router
