"""`/v1/generations`: generations that are requested now, run later and can be watched."""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import Field

from uniemo_ray.service.api.events import follow
from uniemo_ray.service.api.generate import resolve_params
from uniemo_ray.service.api.guard import LOCAL
from uniemo_ray.service.api.json_route import JsonRoute
from uniemo_ray.service.api.metrics import GENERATE
from uniemo_ray.service.api.paths import link
from uniemo_ray.service.api.problems import Problem, ProblemError, problem_responses, to_problem
from uniemo_ray.service.api.schemas import MEDIA_TYPE, GenerateRequest, Schema, limited_generate
from uniemo_ray.service.api.state import Service, caller_of, service_of
from uniemo_ray.service.backend import Refusal
from uniemo_ray.service.generations import GenerationState, ImageState, StoredGeneration
from uniemo_ray.service.settings import RETRY_AFTER_S, Limits

ID = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{22}$", description="`id` of the generation.")]
Index = Annotated[int, Path(ge=0, le=999, description="Number of the image, from 0.")]
_LINKS = {
    name: {"operationId": operation, "parameters": {"id": "$response.body#/id"}}
    for name, operation in (
        ("Get", "get_generation"),
        ("Watch", "watch_generation"),
        ("Cancel", "cancel_generation"),
    )
}
_GET = (401, 403, 404, 422, 429, 500, 503)


class GenerationImage(Schema):
    """One image of a generation."""

    seed: int
    """Seed of this image. A request with this seed and n = 1 gives this image alone."""
    step: int
    """Finished sampling steps."""
    steps: int
    """Sampling steps in all; 0 while unknown."""
    media_type: str
    """Media type of the finished image."""
    url: str | None = None
    """Path of the finished image on this server, or a URL of its storage."""
    preview_url: str | None = None
    """Path of the latest preview. It is missing before the first preview."""
    sha256: str | None = None
    """SHA-256 checksum of the finished file."""
    provenance: dict[str, Any] | None = None
    """Model, prompt, weights, settings and versions that produced the finished image."""


class Generation(Schema):
    """State of a generation."""

    id: str
    """Name of the generation in URLs."""
    status: Literal["queued", "running", "done", "failed", "cancelled"]
    """`done`, `failed` and `cancelled` are final."""
    created_at: datetime
    """Time of the request."""
    expires_at: datetime
    """Time at which the generation and its images are deleted."""
    seed: int
    """Seed of the first image. Image i has seed + i."""
    images: list[GenerationImage]
    """The images in the order of their seeds."""
    problem: Problem | None = Field(None)
    """Why the generation failed."""


def make_router(limits: Limits, models: Sequence[str], emotions: Sequence[str] | None) -> APIRouter:
    """Build the routes, with the service's limits, models and emotions in their description."""
    router = APIRouter(prefix="/v1/generations", tags=["generations"], route_class=JsonRoute)
    model = limited_generate(limits, models, emotions)

    @router.post(
        "",
        status_code=202,
        responses={
            202: {"headers": {"Location": {"schema": {"type": "string"}}}, "links": _LINKS},
            **problem_responses(400, 401, 403, 408, 413, 415, 422, 429, 500, 503, 507),
        },
    )
    async def create_generation(request: Request, response: Response, asked: model) -> Generation:  # type: ignore[valid-type]
        """Start a generation. Returns its state at once; the images follow later."""
        service, caller = service_of(request), caller_of(request)
        generation = await _start(service, asked, caller)
        response.headers["location"] = link(request.scope, f"/v1/generations/{generation.id}")
        return show(request, generation, await asyncio.to_thread(service.generation_store.state, generation))

    @router.get("/{id}", operation_id="get_generation", responses=problem_responses(*_GET))
    async def get_generation(request: Request, id: ID) -> Generation:
        """Get the state of a generation."""
        service = service_of(request)
        generation = await _find(request, id)
        return show(request, generation, await asyncio.to_thread(service.generation_store.state, generation))

    @router.get(
        "/{id}/events",
        operation_id="watch_generation",
        responses={200: {"content": {"text/event-stream": {}}}, **problem_responses(*_GET)},
        response_class=StreamingResponse,
    )
    async def watch_generation(request: Request, id: ID) -> StreamingResponse:
        """Watch a generation as server-sent events.

        The events are `queued`, `step`, `preview` and `image`, which says that an image is finished. The last
        event is `done`, `failed` or `cancelled`. The data of each event is JSON. A stream can be opened
        again at any time; it then starts with the current state.
        """
        service = service_of(request)
        generation = await _find(request, id)
        events = follow(service, generation, lambda state: show(request, generation, state))
        return StreamingResponse(events, media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    @router.delete("/{id}", operation_id="cancel_generation", responses=problem_responses(*_GET, 507))
    async def cancel_generation(request: Request, id: ID) -> Generation:
        """Cancel and delete a generation. Returns its last state; later requests return 404.

        The images, the prompt and the provenance are deleted. A replica that works on nothing else is free
        after its current sampling step.
        """
        service = service_of(request)
        generation = await _find(request, id)
        state = await asyncio.to_thread(service.generation_store.state, generation)
        await asyncio.to_thread(service.generation_store.cancel, generation.id)
        if state.status == "queued" and generation.id in service.generation_tasks:
            service.generation_tasks[generation.id].cancel()  # its place in the queue becomes free at once
        if not state.is_final:
            state = replace(state, status="cancelled")
        return show(request, generation, state)

    def add_image_route(path: str, name: str, summary: str) -> None:
        types = MEDIA_TYPE.values() if name == "image" else ["image/webp"]
        files = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in types}

        async def get_image(request: Request, id: ID, index: Index) -> Response:
            service = service_of(request)
            generation = await _find(request, id)
            data = await asyncio.to_thread(
                service.generation_store.read_image, generation.id, f"{name}-{index}"
            )
            if data is None:
                raise ProblemError(404, f"there is no such {name}, or it does not exist yet")
            kind = MEDIA_TYPE[generation.params.format] if name == "image" else "image/webp"
            return Response(data, media_type=kind)

        router.add_api_route(
            path,
            get_image,
            methods=["GET"],
            name=f"get_{name}",
            summary=summary,
            operation_id=f"get_generation_{name}",
            response_class=Response,
            responses={200: {"content": files}, **problem_responses(*_GET)},
        )

    add_image_route("/{id}/images/{index}", "image", "Get a finished image")
    add_image_route("/{id}/previews/{index}", "preview", "Get the latest preview of an image")
    return router


async def _start(service: Service, asked: GenerateRequest, caller: str) -> StoredGeneration:
    params = await resolve_params(service, asked, "png")
    if service.unfinished[caller] >= service.limits.concurrent_generations:
        raise ProblemError(
            429,
            f"more than {service.limits.concurrent_generations} unfinished generations",
            retry_after_s=RETRY_AFTER_S,
        )
    kept = await service.readiness.kept_bytes.get()
    if kept.total() > service.limits.kept_bytes:
        raise ProblemError(507, "the server keeps as many generations as it may: delete some, or wait")
    if caller != LOCAL and kept[caller] > service.limits.kept_bytes_per_token:
        raise ProblemError(507, "your generations take as much room as they may: delete some, or wait")
    service.unfinished[caller] += 1
    with ExitStack() as counted:
        counted.callback(_decrease_unfinished, service, caller)
        counted.enter_context(service.metrics.in_progress(GENERATE, params.n))
        generation = await asyncio.to_thread(
            service.generation_store.create,
            params,
            owner=caller,
            timeout_s=2 * service.limits.generate_timeout_s,
        )
        try:
            work = await service.backend.start(generation.id, params)
        except BaseException:
            await asyncio.to_thread(service.generation_store.delete, generation.id)
            raise
        until_done = counted.pop_all()
    service.generation_tasks[generation.id] = work
    work.add_done_callback(lambda _: service.generation_tasks.pop(generation.id))
    work.add_done_callback(lambda _: until_done.close())
    work.add_done_callback(lambda _: _count_images(service, generation))
    return generation


def _decrease_unfinished(service: Service, caller: str) -> None:
    service.unfinished[caller] -= 1


def _count_images(service: Service, generation: StoredGeneration) -> None:
    """Count the images of a finished generation. The store is read outside the event loop."""

    def count() -> None:
        state = service.generation_store.state(generation)
        if state.status == "done":
            service.metrics.count_generated(
                generation.params.emotions, [image.batch for image in state.images]
            )

    asyncio.get_running_loop().run_in_executor(None, count)


async def _find(request: Request, generation_id: str) -> StoredGeneration:
    """Find a generation of the caller. Raises ProblemError for any other."""
    generation = await asyncio.to_thread(
        service_of(request).generation_store.find, generation_id, owner=caller_of(request)
    )
    if generation is None:
        raise ProblemError(404, "there is no such generation, or it has expired or was cancelled")
    return generation


def show(request: Request, generation: StoredGeneration, state: GenerationState) -> Generation:
    """Build the response of a generation."""
    return Generation(
        id=generation.id,
        status=state.status,
        created_at=datetime.fromtimestamp(generation.created_at, UTC),
        expires_at=datetime.fromtimestamp(generation.expires_at, UTC),
        seed=generation.params.seed,
        images=[_image(request, generation, i, image) for i, image in enumerate(state.images)],
        problem=None if state.problem is None else _problem(state.problem),
    )


def _image(request: Request, generation: StoredGeneration, i: int, image: ImageState) -> GenerationImage:
    path, url = link(request.scope, f"/v1/generations/{generation.id}"), None
    if image.sha256:
        url = (
            service_of(request).generation_store.presigned_url(generation, f"image-{i}")
            or f"{path}/images/{i}"
        )
    return GenerationImage(
        seed=generation.params.seed + i,
        step=image.step,
        steps=image.of,
        media_type=MEDIA_TYPE[generation.params.format],
        url=url,
        preview_url=f"{path}/previews/{i}" if image.previews else None,
        sha256=image.sha256 or None,
        provenance=image.provenance or None,
    )


def _problem(refusal: Refusal) -> Problem:
    error = to_problem(refusal)
    return Problem(title="Failed", status=error.status_code, detail=str(error.detail), field=error.field)
