"""`POST /v1/generate`."""

import asyncio
import base64
from collections.abc import Sequence

from fastapi import APIRouter, Request
from fastapi.responses import Response

from uniemo_ray.inference.provenance import sha256_hex
from uniemo_ray.service.api.accept import choose
from uniemo_ray.service.api.json_route import JsonRoute
from uniemo_ray.service.api.metrics import GENERATE
from uniemo_ray.service.api.problems import ProblemError, problem_responses, to_problem
from uniemo_ray.service.api.schemas import (
    MEDIA_TYPE,
    GeneratedFile,
    GenerateRequest,
    GenerateResponse,
    limited_generate,
    side_multiple,
    unknown_emotion,
)
from uniemo_ray.service.api.state import Service, service_of, while_connected, with_timeout
from uniemo_ray.service.backend import EncodedImage, Format, GenerationParams, Refusal
from uniemo_ray.service.settings import Limits

_FILE = {"schema": {"type": "string", "format": "binary"}}
_JSON = "application/json"


def make_router(limits: Limits, models: Sequence[str], emotions: Sequence[str] | None) -> APIRouter:
    """Build the route, with the service's limits, models and emotions in its description."""
    router = APIRouter(prefix="/v1", tags=["generate"], route_class=JsonRoute)
    model = limited_generate(limits, models, emotions)

    @router.post(
        "/generate",
        responses={
            200: {
                "model": GenerateResponse,
                "description": "The images as JSON, or one image as a file if `Accept` names an image type.",
                "content": {kind: _FILE for kind in MEDIA_TYPE.values()},
            },
            **problem_responses(400, 401, 403, 406, 408, 413, 415, 422, 429, 500, 503),
        },
        response_class=Response,
    )
    async def generate(request: Request, asked: model) -> Response:  # type: ignore[valid-type]
        """Generate images that evoke an emotion or a mixture of emotions.

        The response is JSON with the images in base64. If `n` is 1 and `Accept` names an image type, the
        response is the image file.
        """
        service = service_of(request)
        kind = _choose_kind(request.headers.get("accept", ""), asked)
        params = await resolve_params(service, asked, "png" if kind == _JSON else _format(kind))
        with service.metrics.in_progress(GENERATE, params.n):
            work = while_connected(request, service.backend.generate(params))
            images = await with_timeout(service.limits.generate_timeout_s, work)
        if isinstance(images, Refusal):
            raise to_problem(images)
        service.metrics.count_generated(params.emotions, [image.batch for image in images])
        if kind != _JSON:
            return Response(images[0].data, media_type=kind)
        return await asyncio.to_thread(_to_json, params, images)

    return router


async def resolve_params(service: Service, asked: GenerateRequest, default: Format) -> GenerationParams:
    """Check a request against its model and return its parameters.

    Args:
        service: answers the request.
        asked: the request.
        default: format of the images if the request names none.

    Raises:
        ProblemError: the model cannot do what is asked.
    """
    service.check_model(asked.model)
    params = asked.to_params(asked.format or default)
    described = await with_timeout(
        service.limits.understand_timeout_s, service.backend.describe(params.model)
    )
    if not described.paintable:
        raise ProblemError(422, "this model only understands images and cannot generate any", field="model")
    width, height = params.width or described.defaults["width"], params.height or described.defaults["height"]
    for name, side in (("width", width), ("height", height)):
        multiple = side_multiple(described.pixels_multiple)
        if side % multiple:
            raise ProblemError(422, f"{name} must be a multiple of {multiple}, got {side}", field=name)
    if params.n * width * height > service.limits.generated_pixels:
        raise ProblemError(
            422, f"n x width x height is more than {service.limits.generated_pixels} pixels", field="n"
        )
    for emotion in params.emotions:
        if emotion not in described.emotions:
            raise ProblemError(422, unknown_emotion(emotion, described.emotions), field="emotion")
        if emotion not in described.paintable:
            raise ProblemError(
                422, f"this model cannot generate {emotion}: its training had no image of it", field="emotion"
            )
    return params


def _choose_kind(accept: str, asked: GenerateRequest) -> str:
    """Choose the media type of the response. Raises ProblemError."""
    files = list(MEDIA_TYPE.values()) if asked.format is None else [MEDIA_TYPE[asked.format]]
    kind = choose(accept, [_JSON, *(files if asked.n == 1 else [])])
    if kind is None:
        hint = "ask for JSON" if asked.n > 1 else f"ask for JSON or {', '.join(files)}"
        raise ProblemError(406, f"this response is not available in the accepted media types: {hint}")
    return kind


def _format(kind: str) -> Format:
    return next(name for name, media_type in MEDIA_TYPE.items() if media_type == kind)


def _to_json(params: GenerationParams, images: list[EncodedImage]) -> Response:
    files = [
        GeneratedFile(
            seed=params.seed + i,
            media_type=MEDIA_TYPE[params.format],
            data=base64.b64encode(image.data).decode(),
            sha256=sha256_hex(image.data),
            provenance=image.provenance,
        )
        for i, image in enumerate(images)
    ]
    response = GenerateResponse(seed=params.seed, images=files)
    return Response(response.model_dump_json(), media_type=_JSON)
