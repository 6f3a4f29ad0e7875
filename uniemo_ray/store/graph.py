"""Work that depends on other work: whatever is ready runs, side by side where there is room."""

import contextvars
import logging
import queue
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


class Graph(Generic[Result]):
    """Runs named pieces of work, each after its inputs.

    Args:
        inputs: Of each piece, in the order in which pieces that are ready at the same time start.
        skip: Result of a piece that needs no work, else None. Called when its inputs are there.
        execute: Does the work of a piece, with the results of its inputs; in a thread of its own while
            several run, else in the caller's.
        has_room: Whether a piece may start beside the named ones that run. With none running it may.
    """

    def __init__(
        self,
        inputs: Mapping[str, Collection[str]],
        *,
        skip: Callable[[str], Result | None],
        execute: Callable[[str, Mapping[str, Result]], Result],
        has_room: Callable[[str, Collection[str]], bool],
    ) -> None:
        self._inputs, self._skip, self._execute, self._has_room = inputs, skip, execute, has_room
        self._results: dict[str, Result] = {}
        self._must_run: set[str] = set()
        self._running: list[str] = []
        self._errors: list[Exception] = []
        self._ended: queue.Queue[tuple[str, Result | Exception]] = queue.Queue()

    def run(self) -> dict[str, Result]:
        """Results of all pieces, in the order of `inputs`.

        After a failure nothing new starts. What runs already comes to its end, and then the first error is
        raised.
        """
        while self._start() or self._running:
            if self._running:
                self._take_one()
        if self._errors:
            raise self._errors[0]
        return {name: self._results[name] for name in self._inputs}

    def _start(self) -> bool:
        """Start what can start; whether anything was started or skipped."""
        chosen: list[str] = []
        is_new = False
        for name, inputs in self._inputs.items():
            is_known = name in self._results or name in self._running
            if self._errors or is_known or not all(other in self._results for other in inputs):
                continue
            skipped = None if name in self._must_run else self._skip(name)
            if skipped is not None:
                self._results[name] = skipped
                is_new = True
            else:
                self._must_run.add(name)
                beside = [*self._running, *chosen]
                if not beside or self._has_room(name, beside):
                    chosen.append(name)
        if len(chosen) == 1 and not self._running:
            self._finish(chosen[0], self._outcome(chosen[0]))  # in this thread, which gets Ctrl-C
            return True
        for name in chosen:
            self._running.append(name)
            context = contextvars.copy_context()
            threading.Thread(target=context.run, args=(self._work, name), name=name, daemon=True).start()
        return is_new or bool(chosen)

    def _take_one(self) -> None:
        """Wait for one of those that run."""
        try:
            name, outcome = self._ended.get()
        except BaseException:
            logger.warning("stopped while %s were running: submit again to go on", ", ".join(self._running))
            raise
        self._running.remove(name)
        self._finish(name, outcome)

    def _work(self, name: str) -> None:
        self._ended.put((name, self._outcome(name)))

    def _outcome(self, name: str) -> Result | Exception:
        try:
            return self._execute(name, {other: self._results[other] for other in self._inputs[name]})
        except Exception as error:
            return error

    def _finish(self, name: str, outcome: Result | Exception) -> None:
        if isinstance(outcome, Exception):
            if not self._errors and self._running:
                logger.warning("%s failed: %s come to their end first", name, ", ".join(self._running))
            self._errors.append(outcome)
        else:
            self._results[name] = outcome
