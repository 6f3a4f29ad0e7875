"""One generation from its first to its last report, in whatever process paints it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from uniemo_ray.inference.provenance import sha256_hex
from uniemo_ray.service.backend import Painted, Refusal
from uniemo_ray.service.generations import ImageState, JobBoard, JobState
from uniemo_ray.service.workers.illustrator import Progress, Ticket

logger = logging.getLogger(__name__)

REPORT_INTERVAL_S = 0.2
Paint = Callable[[Ticket], Awaitable[Painted | Refusal]]


class Painting:
    """A generation at work; progress comes from the painting thread, reports go out from the event loop."""

    def __init__(self, job_id: str, tickets: list[Ticket], *, board: JobBoard) -> None:
        self.job_id, self.tickets, self.board = job_id, tickets, board
        self.images = [ImageState() for _ in tickets]
        self.latest: dict[int, Progress] = {}
        """Written by the painting thread alone; the two below are taken from it."""
        self.previews: dict[int, bytes] = {}
        for i, ticket in enumerate(tickets):
            ticket.on_step = partial(self._note, i)

    def _note(self, i: int, progress: Progress) -> None:
        self.latest[i] = progress
        if progress.preview is not None:
            self.previews[i] = progress.preview

    async def run(self, paint: Paint, *, timeout_s: float) -> JobState:
        """Paint all tickets, report on the way, stop when cancelled; returns the last report."""
        tasks = [asyncio.create_task(_settled(paint, ticket)) for ticket in self.tickets]
        try:
            async with asyncio.timeout(timeout_s) as limit:
                last = await self._watch(tasks, limit, timeout_s)
        except TimeoutError:
            what = "painting took too long" if self._is_started else "it waited too long for its turn"
            last = JobState("failed", tuple(self.images), Refusal(what, is_ours=True))
        finally:
            self._give_up()
            for task in tasks:
                task.cancel()
        return await asyncio.to_thread(self._report, last)

    def _report(self, last: JobState) -> JobState:
        """The last report; whoever cancelled before all pictures were written has not deleted the rest."""
        if self.board.is_cancelled(self.job_id):
            self.board.cancel(self.job_id)
            last = JobState("cancelled", tuple(self.images))
        self.board.write(self.job_id, last)
        return last

    @property
    def _is_started(self) -> bool:
        return any(image.step for image in self.images)

    async def _watch(
        self, tasks: list["asyncio.Task[Painted | Refusal]"], limit: asyncio.Timeout, timeout_s: float
    ) -> JobState:
        reported, was_started = None, False
        pending = set(tasks)
        while pending:
            if await asyncio.to_thread(self.board.is_cancelled, self.job_id):
                return JobState("cancelled", tuple(self.images))
            await asyncio.to_thread(self._take_progress)
            if self._is_started and not was_started:
                was_started = True
                limit.reschedule(asyncio.get_running_loop().time() + timeout_s)
            state = JobState("running" if self._is_started else "queued", tuple(self.images))
            if state != reported:
                await asyncio.to_thread(self.board.write, self.job_id, state)
                reported = state
            _, pending = await asyncio.wait(pending, timeout=REPORT_INTERVAL_S)
        return await asyncio.to_thread(self._finish, [task.result() for task in tasks])

    def _take_progress(self) -> None:
        for i, progress in list(self.latest.items()):
            image = replace(self.images[i], step=progress.step, of=progress.of)
            preview = self.previews.pop(i, None)
            if preview is not None:
                self.board.write_picture(self.job_id, f"preview-{i}", preview)
                image = replace(image, previews=image.previews + 1)
            self.images[i] = image

    def _finish(self, results: list[Painted | Refusal]) -> JobState:
        self._take_progress()
        for i, result in enumerate(results):
            if isinstance(result, Refusal):
                return JobState("failed", tuple(self.images), result)
            self.board.write_picture(self.job_id, f"image-{i}", result.data)
            self.images[i] = replace(
                self.images[i],
                sha256=sha256_hex(result.data),
                provenance=result.provenance,
                batch=result.batch,
            )
        return JobState("done", tuple(self.images))

    def _give_up(self) -> None:
        for ticket in self.tickets:
            ticket.is_cancelled = True


async def _settled(paint: Paint, ticket: Ticket) -> Painted | Refusal:
    """The result, with an inner error as a refusal that tells nothing of the inside."""
    try:
        return await paint(ticket)
    except Exception as error:
        logger.error("painting failed: %s", type(error).__name__, exc_info=error)
        return Refusal("the image could not be painted; the server's log says why", is_ours=True)


async def run_job(
    job_id: str, tickets: list[Ticket] | Refusal, *, paint: Paint, board: JobBoard, timeout_s: float
) -> None:
    """Paint a whole generation and write everything about it to the board.

    Args:
        job_id: of the board.
        tickets: its images, or why there will be none.
        paint: gives a ticket to a model.
        board: where reports go.
        timeout_s: longest wait for the first step, and longest work from then on.
    """
    if isinstance(tickets, Refusal):
        await asyncio.to_thread(board.write, job_id, JobState("failed", (), tickets))
        return
    await Painting(job_id, tickets, board=board).run(paint, timeout_s=timeout_s)
