"""Server-sent events of a generation, read from the generation store; any endpoint replica can send them."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable

from pydantic import BaseModel

from uniemo_ray.service.api.state import Service
from uniemo_ray.service.generations import GenerationState, ImageState, StoredGeneration

LOOK_INTERVAL_S, LONGEST_INTERVAL_S = 0.2, 1.0
"""Between two looks at the generation store; it grows while nothing changes, as each look asks the store."""
KEEP_ALIVE_S = 15.0
"""Proxies close connections on which nothing comes for long."""


async def follow(
    service: Service, generation: StoredGeneration, show: Callable[[GenerationState], BaseModel]
) -> AsyncIterator[bytes]:
    """Events until the generation is final.

    queued    {"id"}                             first of all
    step      {"image", "step", "steps"}         for each image that got further
    preview   {"image", "step", "media_type", "data"}   with base64
    done, failed, cancelled   the generation, as a GET gives it
    """
    yield event("queued", json.dumps({"id": generation.id}))
    before, pause_s, quiet_s = (ImageState(),) * generation.params.n, LOOK_INTERVAL_S, 0.0
    while True:
        # a generation that failed at once has no images
        state = await asyncio.to_thread(service.generation_store.state, generation)
        for i, (old, new) in enumerate(zip(before, state.images, strict=False)):
            for chunk in await asyncio.to_thread(_changes, service, generation, i, old, new):
                quiet_s = 0.0
                yield chunk
        pause_s = min(2 * pause_s, LONGEST_INTERVAL_S) if state.images == before else LOOK_INTERVAL_S
        before = state.images
        if state.is_final:
            yield event(state.status, show(state).model_dump_json(exclude_none=True))
            return
        await asyncio.sleep(pause_s)
        quiet_s += pause_s
        if quiet_s >= KEEP_ALIVE_S:
            quiet_s = 0.0
            yield b": still here\n\n"


def _changes(
    service: Service, generation: StoredGeneration, i: int, old: ImageState, new: ImageState
) -> list[bytes]:
    events = []
    if new.step > old.step:
        events.append(event("step", json.dumps({"image": i, "step": new.step, "steps": new.of})))
    if new.previews > old.previews and not new.sha256:
        data = service.generation_store.read_picture(generation.id, f"preview-{i}")
        if data is not None:
            text = base64.b64encode(data).decode()
            entries = {"image": i, "step": new.step, "media_type": "image/webp", "data": text}
            events.append(event("preview", json.dumps(entries)))
    return events


def event(name: str, data: str) -> bytes:
    """One event; `data` has no line break."""
    return f"event: {name}\ndata: {data}\n\n".encode()
