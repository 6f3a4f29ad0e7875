"""`/v1/generations`: asked for now, painted later, watched meanwhile."""

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
from uniemo_ray.service.api.metrics import GENERATE
from uniemo_ray.service.api.problems import Problem, ProblemError, problem_responses, refused
from uniemo_ray.service.api.schemas import MEDIA_TYPE, GenerateRequest, Schema, limited_generate
from uniemo_ray.service.api.state import Service, caller_of, service_of
from uniemo_ray.service.backend import Refusal
from uniemo_ray.service.generations import GenerationState, ImageState, StoredGeneration
from uniemo_ray.service.settings import RETRY_AFTER_S, Limits

ID = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{22}$", description="What the creation answered.")]
Index = Annotated[int, Path(ge=0, le=999, description="Of the image, from 0.")]
_LINKS = {
    name: {"operationId": operation, "parameters": {"id": "$response.body#/id"}}
    for name, operation in (
        ("Look", "get_generation"),
        ("Watch", "watch_generation"),
        ("Cancel", "cancel_generation"),
    )
}
_GET = (401, 403, 404, 422, 429, 500, 503)


class GenerationImage(Schema):
    """One image of a generation."""

    seed: int
    """This image alone comes again with it and n = 1."""
    step: int
    """Finished steps."""
    steps: int
    """Steps in all; 0 while unknown."""
    media_type: str
    url: str | None = None
    """Where the finished image is: a path of this server, or a link into its storage."""
    preview_url: str | None = None
    """Where an unfinished picture is, once there is one."""
    sha256: str | None = None
    """Of the finished file."""
    provenance: dict[str, Any] | None = None
    """How the finished image was made."""


class Generation(Schema):
    """A generation as it is now."""

    id: str
    status: Literal["queued", "running", "done", "failed", "cancelled"]
    created_at: datetime
    expires_at: datetime
    """Gone after that."""
    seed: int
    """Of the first image."""
    images: list[GenerationImage]
    problem: Problem | None = Field(None)
    """Why it failed."""


def make_router(limits: Limits, models: Sequence[str]) -> APIRouter:
    """The routes, with the service's limits and models in their description."""
    router = APIRouter(prefix="/v1/generations", tags=["generations"])
    model = limited_generate(limits, models)

    @router.post(
        "",
        status_code=202,
        responses={
            202: {"headers": {"Location": {"schema": {"type": "string"}}}, "links": _LINKS},
            **problem_responses(400, 401, 403, 408, 413, 422, 429, 500, 503),
        },
    )
    async def create_generation(request: Request, response: Response, asked: model) -> Generation:  # type: ignore[valid-type]
        """Begin to generate; the answer comes at once, the images later."""
        service, caller = service_of(request), caller_of(request)
        generation = await _start(service, asked, caller)
        response.headers["location"] = f"/v1/generations/{generation.id}"
        return show(service, generation, await asyncio.to_thread(service.generation_store.state, generation))

    @router.get("/{id}", operation_id="get_generation", responses=problem_responses(*_GET))
    async def get_generation(request: Request, id: ID) -> Generation:
        """How far it is."""
        service = service_of(request)
        generation = await _find(request, id)
        return show(service, generation, await asyncio.to_thread(service.generation_store.state, generation))

    @router.get(
        "/{id}/events",
        operation_id="watch_generation",
        responses={200: {"content": {"text/event-stream": {}}}, **problem_responses(*_GET)},
        response_class=StreamingResponse,
    )
    async def watch_generation(request: Request, id: ID) -> StreamingResponse:
        """Server-sent events: `queued`, `step`, `preview`, and at last `done`, `failed` or `cancelled`.

        Each `data` is JSON. A stream that breaks off can be opened again: it begins with how things are.
        """
        service = service_of(request)
        generation = await _find(request, id)
        events = follow(service, generation, lambda state: show(service, generation, state))
        return StreamingResponse(events, media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    @router.delete("/{id}", operation_id="cancel_generation", responses=problem_responses(*_GET))
    async def cancel_generation(request: Request, id: ID) -> Generation:
        """Stop and forget it: a replica that works on nothing else is free at the next step.

        The answer is how it was; afterwards it is not found, and its images are gone.
        """
        service = service_of(request)
        generation = await _find(request, id)
        state = await asyncio.to_thread(service.generation_store.state, generation)
        await asyncio.to_thread(service.generation_store.cancel, generation.id)
        if state.status == "queued" and generation.id in service.begun:
            service.begun[generation.id].cancel()  # its place in the queue is free at once
        if not state.is_final:
            state = replace(state, status="cancelled")
        return show(service, generation, state)

    def add_picture(path: str, name: str, summary: str) -> None:
        types = MEDIA_TYPE.values() if name == "image" else ["image/webp"]
        files = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in types}

        async def get_picture(request: Request, id: ID, index: Index) -> Response:
            service = service_of(request)
            generation = await _find(request, id)
            data = await asyncio.to_thread(
                service.generation_store.read_picture, generation.id, f"{name}-{index}"
            )
            if data is None:
                raise ProblemError(404, f"there is no such {name}, or not yet")
            kind = MEDIA_TYPE[generation.params.format] if name == "image" else "image/webp"
            return Response(data, media_type=kind)

        router.add_api_route(
            path,
            get_picture,
            methods=["GET"],
            name=f"get_{name}",
            summary=summary,
            operation_id=f"get_generation_{name}",
            response_class=Response,
            responses={200: {"content": files}, **problem_responses(*_GET)},
        )

    add_picture("/{id}/images/{index}", "image", "A finished image")
    add_picture("/{id}/previews/{index}", "preview", "The latest look at an unfinished image")
    return router


async def _start(service: Service, asked: GenerateRequest, caller: str) -> StoredGeneration:
    params = await resolve_params(service, asked, "png")
    if service.unfinished[caller] >= service.limits.concurrent_generations:
        raise ProblemError(
            429,
            f"more than {service.limits.concurrent_generations} unfinished generations",
            retry_after_s=RETRY_AFTER_S,
        )
    service.unfinished[caller] += 1
    with ExitStack() as counted:
        counted.callback(_count_down, service, caller)
        counted.enter_context(service.metrics.working(GENERATE, params.n))
        generation = await asyncio.to_thread(
            service.generation_store.create,
            params,
            owner=caller,
            patience_s=2 * service.limits.generate_timeout_s,
        )
        try:
            work = await service.backend.start(generation.id, params)
        except BaseException:
            await asyncio.to_thread(service.generation_store.forget, generation.id)
            raise
        until_done = counted.pop_all()
    service.begun[generation.id] = work
    work.add_done_callback(lambda _: service.begun.pop(generation.id))
    work.add_done_callback(lambda _: until_done.close())
    work.add_done_callback(lambda _: _count_images(service, generation))
    return generation


def _count_down(service: Service, caller: str) -> None:
    service.unfinished[caller] -= 1


def _count_images(service: Service, generation: StoredGeneration) -> None:
    """For the metrics; the store is asked outside the event loop."""

    def count() -> None:
        state = service.generation_store.state(generation)
        if state.status == "done":
            service.metrics.painted(generation.params.emotions, [image.batch for image in state.images])

    asyncio.get_running_loop().run_in_executor(None, count)


async def _find(request: Request, generation_id: str) -> StoredGeneration:
    """The caller's own generation. Raises ProblemError for any other."""
    generation = await asyncio.to_thread(
        service_of(request).generation_store.find, generation_id, owner=caller_of(request)
    )
    if generation is None:
        raise ProblemError(404, "there is no such generation, or no longer")
    return generation


def show(service: Service, generation: StoredGeneration, state: GenerationState) -> Generation:
    """A generation as its caller sees it."""
    return Generation(
        id=generation.id,
        status=state.status,
        created_at=datetime.fromtimestamp(generation.created_at, UTC),
        expires_at=datetime.fromtimestamp(generation.expires_at, UTC),
        seed=generation.params.seed,
        images=[_image(service, generation, i, image) for i, image in enumerate(state.images)],
        problem=None if state.problem is None else _problem(state.problem),
    )


def _image(service: Service, generation: StoredGeneration, i: int, image: ImageState) -> GenerationImage:
    url = None
    if image.sha256:
        url = (
            service.generation_store.link(generation, f"image-{i}")
            or f"/v1/generations/{generation.id}/images/{i}"
        )
    return GenerationImage(
        seed=generation.params.seed + i,
        step=image.step,
        steps=image.of,
        media_type=MEDIA_TYPE[generation.params.format],
        url=url,
        preview_url=f"/v1/generations/{generation.id}/previews/{i}" if image.previews else None,
        sha256=image.sha256 or None,
        provenance=image.provenance or None,
    )


def _problem(refusal: Refusal) -> Problem:
    error = refused(refusal)
    return Problem(title="Failed", status=error.status_code, detail=str(error.detail), field=error.field)
