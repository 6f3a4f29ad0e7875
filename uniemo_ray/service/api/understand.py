"""`POST /v1/understand`."""

import base64
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from uniemo_ray.service.api.file_structure import has_few_blocks, is_image
from uniemo_ray.service.api.files import MEDIA_TYPES, VAGUE, Inspected, inspect
from uniemo_ray.service.api.form import Part, read_form
from uniemo_ray.service.api.metrics import UNDERSTAND
from uniemo_ray.service.api.overlays import centre_square, overlay_png
from uniemo_ray.service.api.problems import ProblemError, problem_responses, to_problem
from uniemo_ray.service.api.schemas import (
    MODEL_QUERY,
    Attention,
    Attribute,
    UnderstandRequest,
    UnderstandResponse,
    UnderstoodImage,
    limited_understand,
    one_of,
)
from uniemo_ray.service.api.state import (
    SMALL_BYTES,
    Service,
    run_upload,
    service_of,
    while_connected,
    with_timeout,
)
from uniemo_ray.service.backend import DEFAULT_MODEL, ImageInput, ImageOutput, Refusal
from uniemo_ray.service.settings import Limits

MORE_VALUES = 50
"""Most commas of a JSON request beyond those between its images."""
SIMPLE_BLOCKS = 256
"""Most blocks of a file that is inspected in the event loop."""
SCENE_COLOUR, OBJECT_COLOUR = (255, 176, 0), (0, 200, 220)


class Upload(NamedTuple):
    """One file of a request."""

    data: bytes
    media_type: str
    """Media type that the sender declared; empty for none."""
    field: str
    """Part of the request that held the file."""


class UnderstandOptions(NamedTuple):
    """The options of a request."""

    attention: bool
    names: int
    model: str


def make_router(limits: Limits, models: Sequence[str]) -> APIRouter:
    """Build the route, with the service's limits and models in its description."""
    router = APIRouter(prefix="/v1", tags=["understand"])
    model = limited_understand(limits, models)

    @router.post(
        "/understand",
        responses=problem_responses(400, 401, 403, 408, 413, 415, 422, 429, 500, 503),
        openapi_extra={"requestBody": _request_body(model, limits)},
    )
    async def understand(
        request: Request,
        attention: Annotated[bool, Query(description="Whether to return attention maps.")] = False,
        names: Annotated[
            int, Query(ge=1, le=limits.names, description="How many scenes, and how many objects, to list.")
        ] = 5,
        model_name: Annotated[one_of(models), MODEL_QUERY] = DEFAULT_MODEL,  # type: ignore[valid-type]
    ) -> UnderstandResponse:
        """Understand which emotions images evoke, and which scenes and objects they show.

        The body is one image file, a form with one or more files named `image`, or JSON with files in base64.
        Options are query parameters. In a JSON body they can also be members, which take precedence.
        """
        service = service_of(request)
        options = UnderstandOptions(attention, names, model_name)
        uploads, options = await _read(request, model, options, service)
        service.check_model(options.model)
        files = await run_upload(service, _are_simple(uploads), _inspect, uploads, service.limits)
        images = [
            ImageInput(file.data, options.attention, options.model, file.decode_bytes) for file in files
        ]
        with service.metrics.in_progress(UNDERSTAND, len(images)):
            work = while_connected(request, service.backend.understand(images))
            outputs = await with_timeout(service.limits.understand_timeout_s, work)
        service.metrics.count_understood(outputs)
        return await run_upload(service, not options.attention, _to_response, uploads, outputs, options)

    return router


async def _read(
    request: Request, model: type[UnderstandRequest], options: UnderstandOptions, service: Service
) -> tuple[list[Upload], UnderstandOptions]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        body = await request.body()
        if is_image(body):
            raise ProblemError(
                415,
                "the body is an image and not JSON: send the header Content-Type: application/octet-stream",
            )
        # Base64 has no commas: many of them mean many values, and each value could become an error.
        if body.count(b",") > service.limits.images + MORE_VALUES:
            raise ProblemError(422, "the JSON has more values than a request can have")
        return await run_upload(service, len(body) < SMALL_BYTES, _from_json, body, model, options)
    if kind == "multipart/form-data":
        content_type = request.headers["content-type"]
        body = await request.body()
        is_small = len(body) < SMALL_BYTES
        form = await run_upload(service, is_small, read_form, body, content_type, service.limits.images)
        return _from_form(form), options
    if kind.startswith("image/") or kind in VAGUE:
        body = await request.body()
        _check_kind(body)
        return [Upload(body, kind, "")], options
    raise ProblemError(
        415,
        "send an image, a form or JSON, and say which by the header Content-Type: "
        "application/octet-stream (for any image), multipart/form-data or application/json",
    )


def _check_kind(body: bytes) -> None:
    """Refuse JSON and forms that are sent as an image. Raises ProblemError."""
    for start, kind in ((b"{", "application/json"), (b"--", "multipart/form-data; boundary=...")):
        if body.startswith(start):
            raise ProblemError(
                415, f"the body is not an image: if it is {kind}, send the header Content-Type: {kind}"
            )


def _from_json(
    body: bytes, model: type[UnderstandRequest], options: UnderstandOptions
) -> tuple[list[Upload], UnderstandOptions]:
    try:
        request = model.model_validate_json(body)
    except ValidationError as error:
        raise RequestValidationError([e | {"loc": ("body", *e["loc"])} for e in error.errors()]) from None
    uploads = [Upload(data, "", f"images.{i}") for i, data in enumerate(request.images)]
    inside = {
        name: getattr(request, name) for name in request.model_fields_set & set(UnderstandOptions._fields)
    }
    return uploads, options._replace(**inside)


def _from_form(form: list[Part]) -> list[Upload]:
    if not form or any(part.name != "image" for part in form):
        raise ProblemError(422, "the form must hold files named image, and nothing else", field="image")
    return [
        Upload(part.data, part.media_type, f"image.{i}" if len(form) > 1 else "image")
        for i, part in enumerate(form)
    ]


def _are_simple(uploads: list[Upload]) -> bool:
    """Whether files can be inspected in the event loop: they are small, and made of few blocks."""
    if sum(len(upload.data) for upload in uploads) >= SMALL_BYTES:
        return False
    return all(has_few_blocks(upload.data, SIMPLE_BLOCKS) for upload in uploads)


def _inspect(uploads: list[Upload], limits: Limits) -> list[Inspected]:
    return [
        inspect(upload.data, media_type=upload.media_type, limits=limits, field=upload.field)
        for upload in uploads
    ]


def _to_response(
    uploads: list[Upload], outputs: list[ImageOutput | Refusal], options: UnderstandOptions
) -> UnderstandResponse:
    results, fingerprint = [], ""
    for upload, result in zip(uploads, outputs, strict=True):
        if isinstance(result, Refusal):
            raise to_problem(result, field=upload.field)
        results.append(_to_result(result, options.names))
        fingerprint = result.model
    return UnderstandResponse(model=fingerprint, results=results)


def _to_result(output: ImageOutput, names: int) -> UnderstoodImage:
    result = output.result
    return UnderstoodImage.model_validate(
        {
            "top": result.top,
            "valence": result.valence,
            "emotions": result.emotions,
            "scenes": [Attribute(name=name, score=score) for name, score in result.scenes[:names]],
            "objects": [Attribute(name=name, score=score) for name, score in result.objects[:names]],
            "width": output.width,
            "height": output.height,
            "attention": _attention(output),
        }
    )


def _attention(output: ImageOutput) -> Attention | None:
    scene, object_ = output.result.scene_attention, output.result.object_attention
    if scene is None or object_ is None:
        return None
    return Attention(
        box=centre_square(output.width, output.height),
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
