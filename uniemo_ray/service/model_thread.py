"""The one thread of a process that runs a model, for the service without Ray."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from uniemo_ray.service.backend import UnavailableError
from uniemo_ray.service.settings import RETRY_AFTER_S

Argument = TypeVar("Argument")
Result = TypeVar("Result")


@dataclass(eq=False)
class _Job:
    work: Callable[[Any], Any]
    argument: Any
    future: "Future[Any]" = field(default_factory=Future)

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return  # the caller has left
        with suppress(InvalidStateError):  # the thread was closed meanwhile, and the caller knows
            try:
                self.future.set_result(self.work(self.argument))
            except Exception as error:
                self.future.set_exception(error)


class ModelThread:
    """Runs one piece of work at a time, since two threads in one model do not always give the same bits.

    Urgent work goes first. Long work calls `run_urgent` from time to time, which does the urgent work that
    waits in between. The process can end while the thread is at work.
    """

    def __init__(self) -> None:
        self.urgent: deque[_Job] = deque()
        self.ordinary: deque[_Job] = deque()
        self.current: _Job | None = None
        self.is_closed = False
        self.changed = threading.Condition()
        threading.Thread(target=self._run, name="model", daemon=True).start()

    async def run(
        self, work: Callable[[Argument], Result], argument: Argument, *, is_urgent: bool = False
    ) -> Result:
        """The result of a piece of work. It is not begun if the caller is cancelled before.

        Raises:
            UnavailableError: the thread was closed.
        """
        job = _Job(work, argument)
        with self.changed:
            if self.is_closed:
                raise _stopping()
            (self.urgent if is_urgent else self.ordinary).append(job)
            self.changed.notify()
        result: Result = await asyncio.wrap_future(job.future)
        return result

    def run_urgent(self) -> None:
        """Do the urgent work that waits. For work that this thread runs, between two of its steps."""
        while True:
            with self.changed:
                if not self.urgent:
                    return
                job = self.urgent.popleft()
            job.run()

    def close(self) -> None:
        """Answer all callers with UnavailableError; what runs is not waited for."""
        with self.changed:
            self.is_closed = True
            jobs = [*self.urgent, *self.ordinary, *([self.current] if self.current else [])]
            self.urgent.clear()
            self.ordinary.clear()
            self.changed.notify()
        for job in jobs:
            with suppress(InvalidStateError):
                job.future.set_exception(_stopping())

    def _run(self) -> None:
        while True:
            with self.changed:
                self.current = None
                self.changed.wait_for(lambda: self.is_closed or self.urgent or self.ordinary)
                if self.is_closed:
                    return
                self.current = job = (self.urgent or self.ordinary).popleft()
            job.run()


def _stopping() -> UnavailableError:
    return UnavailableError("the server is stopping", retry_after_s=RETRY_AFTER_S)
