"""The driver's log in the run folder, so that it outlives the cluster."""

import logging
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import TextIO

from uniemo_ray.distributed.beside import beside
from uniemo_ray.distributed.logs import LINE
from uniemo_ray.store.base import Store
from uniemo_ray.store.errors import StoreError

FOLDER = "logs"
EVERY_S = 30.0
PART_CHARACTERS = 1_000_000
"""A file is written anew with each addition up to this length; then another one begins."""


@contextmanager
def kept_log(store: Store, *, epoch: int, every_s: float = EVERY_S) -> Iterator[None]:
    """Write what the driver and its workers say to `logs/EPOCH-PART.log` as well, every few seconds.

    Those are the records of the driver's loggers, and what is printed: Ray prints the lines of workers. A log
    that cannot be written never ends a run.

    Args:
        store: of the run.
        epoch: of the driver's lease; each submission has files of its own.
        every_s: the longest time that a line waits; all of them are written at the end.
    """
    log = _RunLog(store, epoch)
    handler = logging.StreamHandler(log)
    handler.setFormatter(logging.Formatter(LINE))  # with the date: a run may take days
    root = logging.getLogger()

    def keep_writing(is_over: threading.Event) -> None:
        while not is_over.wait(every_s):
            log.store()

    with ExitStack() as stack:
        stack.callback(log.store)
        root.addHandler(handler)
        stack.callback(root.removeHandler, handler)
        stack.enter_context(redirect_stdout(_Both(sys.stdout, log)))
        stack.enter_context(redirect_stderr(_Both(sys.stderr, log)))
        stack.enter_context(beside(keep_writing, name="uniemo-log", within_s=every_s))
        try:
            yield
        except BaseException:
            log.write(traceback.format_exc())
            raise


class _RunLog:
    """Text that goes to numbered files of a store."""

    def __init__(self, store: Store, epoch: int) -> None:
        self._store, self._epoch = store, epoch
        self._part, self._text, self._is_new = 1, "", False
        self._adding, self._storing = threading.Lock(), threading.Lock()

    def write(self, text: str) -> int:
        """Add to the text."""
        with self._adding:
            self._text += text
            self._is_new = True
        return len(text)

    def flush(self) -> None:
        """Nothing: `store` writes."""

    def store(self) -> None:
        """Write the newest file, if anything is new."""
        with self._storing:
            with self._adding:
                text, is_new, self._is_new = self._text, self._is_new, False
            if not is_new:
                return
            key = f"{FOLDER}/{self._epoch:08d}-{self._part:03d}.log"
            try:
                self._store.write_bytes(key, text.encode("utf-8", "replace"))
            except (StoreError, OSError):
                self._is_new = True  # the next time
                return
            if len(text) >= PART_CHARACTERS:
                self._part += 1
                with self._adding:
                    self._text = self._text[len(text) :]


class _Both:
    """A stream whose text goes to the log as well; for anything else it is the stream itself."""

    def __init__(self, stream: TextIO, log: _RunLog) -> None:
        self._stream, self._log = stream, log

    def write(self, text: str) -> int:
        """To both."""
        self._log.write(text)
        return self._stream.write(text)

    def flush(self) -> None:
        """Of the stream."""
        self._stream.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)
