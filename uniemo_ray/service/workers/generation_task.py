"""One generation from its first to its last report, in whatever process paints it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from uniemo_ray.inference.provenance import sha256_hex
from uniemo_ray.service.backend import EncodedImage, Refusal
from uniemo_ray.service.generations import GenerationState, GenerationStore, ImageState
from uniemo_ray.service.workers.image_generator import ImageRequest, SamplingProgress

logger = logging.getLogger(__name__)

REPORT_INTERVAL_S = 0.2
Paint = Callable[[ImageRequest], Awaitable[EncodedImage | Refusal]]


class GenerationTask:
    """A generation at work; progress comes from the painting thread, reports go out from the event loop."""

    def __init__(
        self, generation_id: str, image_requests: list[ImageRequest], *, generation_store: GenerationStore
    ) -> None:
        self.generation_id, self.image_requests, self.generation_store = (
            generation_id,
            image_requests,
            generation_store,
        )
        self.images = [ImageState() for _ in image_requests]
        self.latest: dict[int, SamplingProgress] = {}
        """Written by the painting thread alone; the two below are taken from it."""
        self.previews: dict[int, bytes] = {}
        for i, image_request in enumerate(image_requests):
            image_request.on_step = partial(self._note, i)

    def _note(self, i: int, progress: SamplingProgress) -> None:
        self.latest[i] = progress
        if progress.preview is not None:
            self.previews[i] = progress.preview

    async def run(self, paint: Paint, *, timeout_s: float) -> GenerationState:
        """Paint all image_requests, report on the way, stop when cancelled; returns the last report."""
        tasks = [asyncio.create_task(_settled(paint, image_request)) for image_request in self.image_requests]
        try:
            async with asyncio.timeout(timeout_s) as limit:
                last = await self._watch(tasks, limit, timeout_s)
        except TimeoutError:
            what = "painting took too long" if self._is_started else "it waited too long for its turn"
            last = GenerationState("failed", tuple(self.images), Refusal(what, is_ours=True))
        finally:
            self._give_up()
            for task in tasks:
                task.cancel()
        return await asyncio.to_thread(self._report, last)

    def _report(self, last: GenerationState) -> GenerationState:
        """The last report; whoever cancelled before all pictures were written has not deleted the rest."""
        if self.generation_store.is_cancelled(self.generation_id):
            self.generation_store.cancel(self.generation_id)
            last = GenerationState("cancelled", tuple(self.images))
        self.generation_store.write(self.generation_id, last)
        return last

    @property
    def _is_started(self) -> bool:
        return any(image.step for image in self.images)

    async def _watch(
        self, tasks: list["asyncio.Task[EncodedImage | Refusal]"], limit: asyncio.Timeout, timeout_s: float
    ) -> GenerationState:
        reported, was_started = None, False
        pending = set(tasks)
        while pending:
            if await asyncio.to_thread(self.generation_store.is_cancelled, self.generation_id):
                return GenerationState("cancelled", tuple(self.images))
            await asyncio.to_thread(self._take_progress)
            if self._is_started and not was_started:
                was_started = True
                limit.reschedule(asyncio.get_running_loop().time() + timeout_s)
            state = GenerationState("running" if self._is_started else "queued", tuple(self.images))
            if state != reported:
                await asyncio.to_thread(self.generation_store.write, self.generation_id, state)
                reported = state
            _, pending = await asyncio.wait(pending, timeout=REPORT_INTERVAL_S)
        return await asyncio.to_thread(self._finish, [task.result() for task in tasks])

    def _take_progress(self) -> None:
        for i, progress in list(self.latest.items()):
            image = replace(self.images[i], step=progress.step, of=progress.of)
            preview = self.previews.pop(i, None)
            if preview is not None:
                self.generation_store.write_picture(self.generation_id, f"preview-{i}", preview)
                image = replace(image, previews=image.previews + 1)
            self.images[i] = image

    def _finish(self, results: list[EncodedImage | Refusal]) -> GenerationState:
        self._take_progress()
        for i, result in enumerate(results):
            if isinstance(result, Refusal):
                return GenerationState("failed", tuple(self.images), result)
            self.generation_store.write_picture(self.generation_id, f"image-{i}", result.data)
            self.images[i] = replace(
                self.images[i],
                sha256=sha256_hex(result.data),
                provenance=result.provenance,
                batch=result.batch,
            )
        return GenerationState("done", tuple(self.images))

    def _give_up(self) -> None:
        for image_request in self.image_requests:
            image_request.is_cancelled = True


async def _settled(paint: Paint, image_request: ImageRequest) -> EncodedImage | Refusal:
    """The result, with an inner error as a refusal that tells nothing of the inside."""
    try:
        return await paint(image_request)
    except Exception as error:
        logger.error("painting failed: %s", type(error).__name__, exc_info=error)
        return Refusal("the image could not be painted; the server's log says why", is_ours=True)


async def execute_generation(
    generation_id: str,
    image_requests: list[ImageRequest] | Refusal,
    *,
    paint: Paint,
    generation_store: GenerationStore,
    timeout_s: float,
) -> None:
    """Paint a whole generation and write everything about it to the generation_store.

    Args:
        generation_id: of the generation_store.
        image_requests: its images, or why there will be none.
        paint: gives a image_request to a model.
        generation_store: where reports go.
        timeout_s: longest wait for the first step, and longest work from then on.
    """
    if isinstance(image_requests, Refusal):
        await asyncio.to_thread(
            generation_store.write, generation_id, GenerationState("failed", (), image_requests)
        )
        return
    await GenerationTask(generation_id, image_requests, generation_store=generation_store).run(
        paint, timeout_s=timeout_s
    )
