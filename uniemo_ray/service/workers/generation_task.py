"""The work of one generation, from its first state in the store to its last."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from uniemo_ray.inference.provenance import sha256_hex
from uniemo_ray.service.backend import EncodedImage, Refusal
from uniemo_ray.service.generations import (
    INTERRUPTED,
    NOT_STORED,
    GenerationState,
    GenerationStore,
    ImageState,
    explain_kept,
)
from uniemo_ray.service.workers.image_generator import ImageRequest, SamplingProgress
from uniemo_ray.store.errors import StoreError, StoreFullError

logger = logging.getLogger(__name__)

REPORT_INTERVAL_S = 0.2
Generate = Callable[[ImageRequest], Awaitable[EncodedImage | Refusal]]


class GenerationTask:
    """A generation that runs. The model's thread notes progress; the event loop writes it to the store."""

    def __init__(
        self, generation_id: str, image_requests: list[ImageRequest], *, generation_store: GenerationStore
    ) -> None:
        self.generation_id, self.image_requests = generation_id, image_requests
        self.generation_store = generation_store
        self.images = [ImageState() for _ in image_requests]
        self.latest: dict[int, SamplingProgress] = {}
        """Latest progress by image. The model's thread writes it, the event loop reads it."""
        self.previews: dict[int, bytes] = {}
        """Latest preview by image. The model's thread adds previews, the event loop removes them."""
        self.kept: set[int] = set()
        """Images whose result was looked at."""
        self.problem: Refusal | None = None
        """Why the generation will fail; its other images are finished all the same."""
        for i, image_request in enumerate(image_requests):
            image_request.on_step = partial(self._note, i)

    def _note(self, i: int, progress: SamplingProgress) -> None:
        self.latest[i] = progress
        if progress.preview is not None:
            self.previews[i] = progress.preview

    async def run(self, generate: Generate, *, timeout_s: float) -> GenerationState:
        """Generate all images and report progress; stop if cancelled. Returns the final state."""
        tasks = [asyncio.create_task(_settled(generate, request)) for request in self.image_requests]
        try:
            async with asyncio.timeout(timeout_s) as limit:
                last = await self._watch(tasks, limit, timeout_s)
        except TimeoutError:
            what = "it took too long to generate" if self._is_started else "it waited in the queue too long"
            images = tuple(self.images)
            problem = explain_kept(Refusal(what, is_server_error=True), images)
            last = GenerationState("failed", images, problem)
        except asyncio.CancelledError:
            await asyncio.to_thread(self._keep_interrupted, tasks)
            raise
        finally:
            self._cancel_requests()
            for task in tasks:
                task.cancel()
        return await asyncio.to_thread(self._write_final, last)

    def _keep_interrupted(self, tasks: list["asyncio.Task[EncodedImage | Refusal]"]) -> None:
        """Keep the images that are finished, although this process is about to end."""
        self._take_progress()
        self._keep_finished({i: task.result() for i, task in enumerate(tasks) if _has_result(task)})
        images = tuple(self.images)
        try:
            self._write_final(GenerationState("failed", images, explain_kept(INTERRUPTED, images)))
        except StoreError as error:
            logger.error("the end of a generation could not be stored: %s", error)

    def _write_final(self, last: GenerationState) -> GenerationState:
        """Write the final state. What was written after a cancel is deleted here.

        Raises:
            StoreError: the store still refuses the state when the previews are gone.
        """
        if self.generation_store.is_cancelled(self.generation_id):
            self.generation_store.cancel(self.generation_id)
            return GenerationState("cancelled", tuple(self.images))
        try:
            self.generation_store.write_state(self.generation_id, last)
        except StoreFullError:
            self.generation_store.delete_previews(self.generation_id)
            self.generation_store.write_state(self.generation_id, last)
        return last

    @property
    def _is_started(self) -> bool:
        return any(image.step for image in self.images)

    async def _watch(
        self, tasks: list["asyncio.Task[EncodedImage | Refusal]"], limit: asyncio.Timeout, timeout_s: float
    ) -> GenerationState:
        """Write progress, and each image as soon as it is finished, until all are."""
        reported, was_started = None, False
        pending = set(tasks)
        while True:
            is_last = not pending
            results = {i: task.result() for i, task in enumerate(tasks) if task not in pending}
            if await asyncio.to_thread(self.generation_store.is_cancelled, self.generation_id):
                return GenerationState("cancelled", tuple(self.images))
            await asyncio.to_thread(self._take_progress)
            await asyncio.to_thread(self._keep_finished, results)
            if is_last:
                images = tuple(self.images)
                if self.problem is None:
                    return GenerationState("done", images)
                return GenerationState("failed", images, explain_kept(self.problem, images))
            if self._is_started and not was_started:
                was_started = True
                limit.reschedule(asyncio.get_running_loop().time() + timeout_s)
            state = GenerationState("running" if self._is_started else "queued", tuple(self.images))
            if state != reported:
                await asyncio.to_thread(self._report, state)
                reported = state
            _, pending = await asyncio.wait(pending, timeout=REPORT_INTERVAL_S)

    def _report(self, state: GenerationState) -> None:
        """Write the progress. A store that refuses it may take the images later."""
        try:
            self.generation_store.write_state(self.generation_id, state)
        except StoreError as error:
            logger.warning("the progress of a generation could not be stored: %s", error)

    def _take_progress(self) -> None:
        for i, progress in list(self.latest.items()):
            image = replace(self.images[i], step=progress.step, of=progress.of)
            preview = self.previews.pop(i, None)
            if preview is not None and self._is_stored(f"preview-{i}", preview):
                image = replace(image, previews=image.previews + 1)
            self.images[i] = image

    def _keep_finished(self, results: dict[int, EncodedImage | Refusal]) -> None:
        """Store images that have been finished since the last call; note the first problem."""
        for i, result in results.items():
            if i in self.kept:
                continue
            self.kept.add(i)
            if isinstance(result, Refusal):
                self.problem = self.problem or result
            elif not self._is_stored(f"image-{i}", result.data):
                self.problem = NOT_STORED
            else:
                self.images[i] = replace(
                    self.images[i],
                    sha256=sha256_hex(result.data),
                    provenance=result.provenance,
                    batch=result.batch,
                )

    def _is_stored(self, name: str, data: bytes) -> bool:
        try:
            self.generation_store.write_image(self.generation_id, name, data)
        except StoreError as error:
            logger.warning("%s of a generation could not be stored: %s", name, error)
            return False
        return True

    def _cancel_requests(self) -> None:
        for image_request in self.image_requests:
            image_request.is_cancelled = True


def _has_result(task: "asyncio.Task[EncodedImage | Refusal]") -> bool:
    return task.done() and not task.cancelled()


async def _settled(generate: Generate, image_request: ImageRequest) -> EncodedImage | Refusal:
    """The result of a request. An exception becomes a refusal that reveals no internals."""
    try:
        return await generate(image_request)
    except Exception as error:
        logger.error("generating an image failed: %s", type(error).__name__, exc_info=error)
        return Refusal("the image could not be generated; the server's log says why", is_server_error=True)


async def execute_generation(
    generation_id: str,
    image_requests: list[ImageRequest] | Refusal,
    *,
    generate: Generate,
    generation_store: GenerationStore,
    timeout_s: float,
) -> None:
    """Run a whole generation and write its states and images to the store.

    Args:
        generation_id: names the generation in the store.
        image_requests: its images, or why they cannot be generated.
        generate: passes a request to a model.
        generation_store: takes states and images.
        timeout_s: longest wait for the first step, and longest time from then on.
    """
    if isinstance(image_requests, Refusal):
        failed = GenerationState("failed", (), image_requests)
        await asyncio.to_thread(generation_store.write_state, generation_id, failed)
        return
    task = GenerationTask(generation_id, image_requests, generation_store=generation_store)
    await task.run(generate, timeout_s=timeout_s)
