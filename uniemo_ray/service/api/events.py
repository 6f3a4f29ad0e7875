"""Server-sent events of a generation, read from the generation store; any endpoint replica can send them."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from pydantic import BaseModel

from uniemo_ray.service.api.state import Service
from uniemo_ray.service.generations import GenerationState, ImageState, StoredGeneration

POLL_INTERVAL_S, LONGEST_INTERVAL_S = 0.2, 1.0
"""Time between two reads of the store. It grows while nothing changes, because every read costs a request."""
KEEP_ALIVE_S = 15.0
"""Time after which a comment is sent, because proxies close idle connections."""


class Shown(Protocol):
    """A generation as the API shows it."""

    @property
    def images(self) -> Sequence[BaseModel]:
        """Its images, in order."""

    def model_dump_json(self, *, exclude_none: bool) -> str:
        """The generation as JSON."""


async def follow(
    service: Service, generation: StoredGeneration, show: Callable[[GenerationState], "Shown"]
) -> AsyncIterator[bytes]:
    """Yield events until the generation has ended.

    queued    {"id"}                             the first event
    step      {"image", "step", "steps"}         after sampling steps of an image
    preview   {"image", "step", "media_type", "data"}   a preview in base64
    image     {"image", "seed", "media_type", "url", "sha256"}   an image is finished and can be fetched
    done, failed, cancelled   the generation, as GET returns it
    """
    yield event("queued", json.dumps({"id": generation.id}))
    before, pause_s, quiet_s = (ImageState(),) * generation.params.n, POLL_INTERVAL_S, 0.0
    while True:
        # a generation that fails at once has no images
        state = await asyncio.to_thread(service.generation_store.state, generation)
        for i, (old, new) in enumerate(zip(before, state.images, strict=False)):
            for chunk in await asyncio.to_thread(_changes, service, generation, i, old, new):
                quiet_s = 0.0
                yield chunk
            if new.sha256 and not old.sha256:
                shown = show(state).images[i].model_dump(include={"seed", "media_type", "url", "sha256"})
                yield event("image", json.dumps({"image": i, **shown}))
        pause_s = min(2 * pause_s, LONGEST_INTERVAL_S) if state.images == before else POLL_INTERVAL_S
        before = state.images
        if state.is_final:
            yield event(state.status, show(state).model_dump_json(exclude_none=True))
            return
        await _pause(service, pause_s)
        quiet_s += pause_s
        if quiet_s >= KEEP_ALIVE_S:
            quiet_s = 0.0
            yield b": still here\n\n"


async def _pause(service: Service, pause_s: float) -> None:
    """Wait until it is time to look again, or until the process is about to end."""
    if service.closing.is_set():
        await asyncio.sleep(POLL_INTERVAL_S)
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(pause_s):
            await service.closing.wait()


def _changes(
    service: Service, generation: StoredGeneration, i: int, old: ImageState, new: ImageState
) -> list[bytes]:
    events = []
    if new.step > old.step:
        events.append(event("step", json.dumps({"image": i, "step": new.step, "steps": new.of})))
    if new.previews > old.previews and not new.sha256:
        data = service.generation_store.read_image(generation.id, f"preview-{i}")
        if data is not None:
            text = base64.b64encode(data).decode()
            entries = {"image": i, "step": new.step, "media_type": "image/webp", "data": text}
            events.append(event("preview", json.dumps(entries)))
    return events


def event(name: str, data: str) -> bytes:
    """Format one event. `data` must not contain a line break."""
    return f"event: {name}\ndata: {data}\n\n".encode()
