"""`POST /v1/understand`."""

import base64
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from uniemo_ray.service.api.files import MEDIA_TYPES, inspect
from uniemo_ray.service.api.form import Part, read_form
from uniemo_ray.service.api.metrics import UNDERSTAND
from uniemo_ray.service.api.overlays import overlay_png, seen_box
from uniemo_ray.service.api.problems import ProblemError, problem_responses, refused
from uniemo_ray.service.api.schemas import (
    Attention,
    Attribute,
    UnderstandAnswer,
    UnderstandRequest,
    Understood,
    limited_understand,
    one_of,
)
from uniemo_ray.service.api.state import SMALL_BYTES, aside, service_of, within
from uniemo_ray.service.backend import DEFAULT_MODEL, ImageInput, ImageOutput, Refusal
from uniemo_ray.service.settings import Limits

MORE_VALUES = 50
"""Commas of a JSON request beside those between its images, generously."""
SCENE_COLOUR, OBJECT_COLOUR = (255, 176, 0), (0, 200, 220)


class Upload(NamedTuple):
    """One file of a request."""

    data: bytes
    media_type: str
    """As the sender calls it; empty for nothing."""
    field: str
    """Where it was in the request."""


class Options(NamedTuple):
    """What else a request says."""

    attention: bool
    names: int
    model: str


def make_router(limits: Limits, models: Sequence[str]) -> APIRouter:
    """The route, with the service's limits and models in its description."""
    router = APIRouter(prefix="/v1", tags=["understand"])
    model = limited_understand(limits, models)

    @router.post(
        "/understand",
        responses=problem_responses(400, 401, 403, 408, 413, 415, 422, 429, 500, 503),
        openapi_extra={"requestBody": _request_body(model, limits)},
    )
    async def understand(
        request: Request,
        attention: Annotated[bool, Query(description="Also say where the model looks.")] = False,
        names: Annotated[int, Query(ge=1, le=limits.names, description="Scenes and objects to list.")] = 5,
        model_name: Annotated[one_of(models), Query(alias="model", description="Which.")] = DEFAULT_MODEL,  # type: ignore[valid-type]
    ) -> UnderstandAnswer:
        """Which emotions images evoke, and which scenes and objects they show.

        Send a file as it is, several as `image` of a form, or JSON with base64. Options go into the address;
        what JSON says inside goes first.
        """
        service = service_of(request)
        options = Options(attention, names, model_name)
        uploads, options = await _read(request, model, options, service.limits)
        service.check_model(options.model)
        is_small = sum(len(upload.data) for upload in uploads) < SMALL_BYTES
        await aside(is_small, _inspect, uploads, service.limits)
        images = [ImageInput(upload.data, options.attention, options.model) for upload in uploads]
        with service.metrics.working(UNDERSTAND, len(images)):
            seen = await within(service.limits.understand_timeout_s, service.backend.understand(images))
        service.metrics.understood(seen)
        return await aside(not options.attention, _answer, uploads, seen, options)

    return router


async def _read(
    request: Request, model: type[UnderstandRequest], options: Options, limits: Limits
) -> tuple[list[Upload], Options]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        body = await request.body()
        # Base64 has no commas: more of them than values were asked for, and each might be an error of its own
        if body.count(b",") > limits.images + MORE_VALUES:
            raise ProblemError(422, "the JSON has more values than a request can have")
        return await aside(len(body) < SMALL_BYTES, _from_json, body, model, options)
    if kind == "multipart/form-data":
        content_type = request.headers["content-type"]
        body = await request.body()
        form = await aside(len(body) < SMALL_BYTES, read_form, body, content_type, limits.images)
        return _from_form(form), options
    if kind.startswith("image/") or kind in ("", "application/octet-stream"):
        return [Upload(await request.body(), kind, "")], options
    raise ProblemError(415, "send an image, multipart/form-data or application/json")


def _from_json(body: bytes, model: type[UnderstandRequest], options: Options) -> tuple[list[Upload], Options]:
    try:
        asked = model.model_validate_json(body)
    except ValidationError as error:
        raise RequestValidationError([e | {"loc": ("body", *e["loc"])} for e in error.errors()]) from None
    uploads = [Upload(data, "", f"images.{i}") for i, data in enumerate(asked.images)]
    inside = {name: getattr(asked, name) for name in asked.model_fields_set & set(Options._fields)}
    return uploads, options._replace(**inside)


def _from_form(form: list[Part]) -> list[Upload]:
    if not form or any(part.name != "image" for part in form):
        raise ProblemError(422, "the form needs files named image, and nothing else", field="image")
    return [
        Upload(part.data, part.media_type, f"image.{i}" if len(form) > 1 else "image")
        for i, part in enumerate(form)
    ]


def _inspect(uploads: list[Upload], limits: Limits) -> None:
    for upload in uploads:
        inspect(upload.data, media_type=upload.media_type, limits=limits, field=upload.field)


def _answer(uploads: list[Upload], seen: list[ImageOutput | Refusal], options: Options) -> UnderstandAnswer:
    results, fingerprint = [], ""
    for upload, result in zip(uploads, seen, strict=True):
        if isinstance(result, Refusal):
            raise refused(result, field=upload.field)
        results.append(_understood(result, options.names))
        fingerprint = result.model
    return UnderstandAnswer(model=fingerprint, results=results)


def _understood(seen: ImageOutput, names: int) -> Understood:
    result = seen.result
    return Understood.model_validate(
        {
            "top": result.top,
            "valence": result.valence,
            "emotions": result.emotions,
            "scenes": [Attribute(name=name, score=score) for name, score in result.scenes[:names]],
            "objects": [Attribute(name=name, score=score) for name, score in result.objects[:names]],
            "width": seen.width,
            "height": seen.height,
            "attention": _attention(seen),
        }
    )


def _attention(seen: ImageOutput) -> Attention | None:
    scene, object_ = seen.result.scene_attention, seen.result.object_attention
    if scene is None or object_ is None:
        return None
    return Attention(
        box=seen_box(seen.width, seen.height),
        scene=base64.b64encode(overlay_png(scene, SCENE_COLOUR)).decode(),
        object=base64.b64encode(overlay_png(object_, OBJECT_COLOUR)).decode(),
    )


def _request_body(model: type[UnderstandRequest], limits: Limits) -> dict[str, Any]:
    file = {"type": "string", "format": "binary"}
    form = {
        "type": "object",
        "required": ["image"],
        "additionalProperties": False,
        "properties": {"image": {"type": "array", "minItems": 1, "maxItems": limits.images, "items": file}},
    }
    return {
        "required": True,
        "content": {
            **{kind: {"schema": file} for kind in MEDIA_TYPES.values()},
            "multipart/form-data": {
                "schema": form,
                "encoding": {"image": {"contentType": ", ".join(MEDIA_TYPES.values())}},
            },
            "application/json": {"schema": model.model_json_schema()},
        },
    }
