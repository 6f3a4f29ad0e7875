"""`POST /v1/generate`."""

import asyncio
import base64
from collections.abc import Sequence

from fastapi import APIRouter, Request
from fastapi.responses import Response

from uniemo_ray.inference.provenance import sha256_hex
from uniemo_ray.service.api.accept import choose
from uniemo_ray.service.api.metrics import GENERATE
from uniemo_ray.service.api.problems import ProblemError, problem_responses, refused
from uniemo_ray.service.api.schemas import (
    MEDIA_TYPE,
    GenerateAnswer,
    GeneratedFile,
    GenerateRequest,
    limited_generate,
)
from uniemo_ray.service.api.state import Service, service_of, within
from uniemo_ray.service.backend import EncodedImage, Format, GenerationParams, Refusal
from uniemo_ray.service.settings import Limits

_FILE = {"schema": {"type": "string", "format": "binary"}}
_JSON = "application/json"


def make_router(limits: Limits, models: Sequence[str]) -> APIRouter:
    """The route, with the service's limits and models in its description."""
    router = APIRouter(prefix="/v1", tags=["generate"])
    model = limited_generate(limits, models)

    @router.post(
        "/generate",
        responses={
            200: {
                "model": GenerateAnswer,
                "description": "JSON, or by `Accept` the one image itself",
                "content": {kind: _FILE for kind in MEDIA_TYPE.values()},
            },
            **problem_responses(400, 401, 403, 406, 408, 413, 422, 429, 500, 503),
        },
        response_class=Response,
    )
    async def generate(request: Request, asked: model) -> Response:  # type: ignore[valid-type]
        """Images that evoke an emotion, or a mixture.

        The answer is JSON with base64, or the image itself if `Accept` asks for `image/...` and `n` is 1.
        """
        service = service_of(request)
        kind = _choose_kind(request.headers.get("accept", ""), asked)
        params = await resolve_params(service, asked, "png" if kind == _JSON else _format(kind))
        with service.metrics.working(GENERATE, params.n):
            painted = await within(service.limits.generate_timeout_s, service.backend.generate(params))
        if isinstance(painted, Refusal):
            raise refused(painted)
        service.metrics.painted(params.emotions, [image.batch for image in painted])
        if kind != _JSON:
            return Response(painted[0].data, media_type=kind)
        return await asyncio.to_thread(_json_answer, params, painted)

    return router


async def resolve_params(service: Service, asked: GenerateRequest, default: Format) -> GenerationParams:
    """What the models are asked; `default` is the format where none is named. Raises ProblemError."""
    service.check_model(asked.model)
    params = asked.to_params(asked.format or default)
    known = await within(service.limits.understand_timeout_s, service.backend.describe(params.model))
    if not known.paintable:
        raise ProblemError(422, "this model understands images and makes none", field="model")
    width, height = params.width or known.defaults["width"], params.height or known.defaults["height"]
    for name, side in (("width", width), ("height", height)):
        if side % known.pixels_multiple:
            raise ProblemError(
                422, f"{name} must be a multiple of {known.pixels_multiple}, got {side}", field=name
            )
    if params.n * width * height > service.limits.generated_pixels:
        raise ProblemError(
            422, f"n x width x height is more than {service.limits.generated_pixels} pixels", field="n"
        )
    for emotion in params.emotions:
        if emotion not in known.paintable:
            raise ProblemError(422, f"this model has seen no image of {emotion}", field="emotion")
    return params


def _choose_kind(accept: str, asked: GenerateRequest) -> str:
    """The media type of the answer. Raises ProblemError."""
    files = list(MEDIA_TYPE.values()) if asked.format is None else [MEDIA_TYPE[asked.format]]
    kind = choose(accept, [_JSON, *(files if asked.n == 1 else [])])
    if kind is None:
        hint = "ask for JSON" if asked.n > 1 else f"ask for JSON or {', '.join(files)}"
        raise ProblemError(406, f"no such answer to this request: {hint}")
    return kind


def _format(kind: str) -> Format:
    return next(name for name, media_type in MEDIA_TYPE.items() if media_type == kind)


def _json_answer(params: GenerationParams, painted: list[EncodedImage]) -> Response:
    images = [
        GeneratedFile(
            seed=params.seed + i,
            media_type=MEDIA_TYPE[params.format],
            data=base64.b64encode(image.data).decode(),
            sha256=sha256_hex(image.data),
            provenance=image.provenance,
        )
        for i, image in enumerate(painted)
    ]
    answer = GenerateAnswer(seed=params.seed, images=images)
    return Response(answer.model_dump_json(), media_type=_JSON)
