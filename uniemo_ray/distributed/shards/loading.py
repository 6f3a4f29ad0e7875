"""How an actor's process loads, and how it ends when it cannot load or has lost its accelerator.

A process that stays alive without a working accelerator fails a shard within milliseconds, so it is always
the free one and takes all that is left. It ends instead, and the pool goes on with others.
"""

import errno
import logging
import os
import time
from collections.abc import Callable
from typing import NoReturn, TypeVar

from uniemo_ray.accelerator import causes, is_lost
from uniemo_ray.distributed.shards.health import (
    FAILURES,
    Health,
    Kind,
    NoActorError,
    Note,
    alive,
    failures_by_node,
    here,
    now_ms,
)
from uniemo_ray.store.errors import StoreError

logger = logging.getLogger(__name__)
LOADS = 3
"""How often a process tries to load before it ends."""
FIRST_PAUSE_S, LONGEST_PAUSE_S, GROWTH = 2.0, 60.0, 5
_LASTING = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)
"""Errors of a path that is wrong; libraries raise OSError without a number for a file that is."""
Loaded = TypeVar("Loaded")


class Loading:
    """What the process of one actor says about itself."""

    def __init__(self, health: Health) -> None:
        self.health = health
        self.began_ms = now_ms()

    def load(self, make: Callable[[], Loaded]) -> Loaded:
        """Load, with pauses between tries.

        Raises:
            ValueError: a wrong setting or model, which stays wrong; raised at once.
            NoActorError: this actor is given up, and it was the last one of its pool.
            Exception: what the last try raised; Ray then ends the actor. A process of an actor that has
                run before exits instead, and Ray starts another one, up to `FAILURES` times.
        """
        node, actor = here()
        before = self.health.notes()
        if given_up := [note for note in before if note.actor == actor and note.kind == "gone"]:
            self._give_up(before, given_up[0], actor)
        self.health.note("begun", began_ms=self.began_ms)
        rounds = failures_by_node(before).get(node, 0)
        for tried in range(LOADS):
            try:
                return make()
            except Exception as error:
                if _is_wrong(error) or (tried + 1 == LOADS and type(error) is ValueError):
                    raise
                logger.exception("cannot load (try %d of %d)", tried + 1, LOADS)
                if tried + 1 == LOADS or is_lost(error):
                    has_run = any(note.actor == actor for note in before)
                    if self._fail(error, is_first=not has_run) == "failed":
                        os._exit(1)
                    raise
                time.sleep(_pause_s(tried, rounds))
        raise AssertionError("unreachable")

    def end_process(self, error: Exception, *, made: int) -> NoReturn:
        """End this process, which has lost its accelerator after `made` shards.

        One that has made something is no failure: its actor may do so again.
        """
        try:
            logger.error("the accelerator is lost, this process ends")
            if not made:
                self._fail(error, is_first=False)
        except StoreError:
            logger.exception("the failure cannot be noted")
        finally:
            os._exit(1)  # a clean exit would leave the actor's place in the pool taken

    def _fail(self, error: Exception, *, is_first: bool) -> Kind:
        """Note a failure: the actor's last one, or one after which it starts again."""
        _, actor = here()
        failures = sum(note.is_failure and note.actor == actor for note in self.health.notes())
        kind: Kind = "gone" if is_first or failures + 1 >= FAILURES else "failed"
        self.health.note(kind, began_ms=self.began_ms, error=error)
        return kind

    def _give_up(self, notes: list[Note], last: Note, actor: str) -> NoReturn:
        text = self.health.tell(last)
        if (alive(self.health.pool, notes) & {note.actor for note in notes}) - {actor}:
            raise RuntimeError(f"this actor has failed {FAILURES} times and is given up. {text}")
        raise NoActorError(f"no actor of the pool can start: the last one failed {FAILURES} times on {text}")


def _is_wrong(error: Exception) -> bool:
    """Whether a setting or a model is wrong, and no disk, network or accelerator has failed on the way."""
    is_passing = any(
        isinstance(each, TimeoutError | ConnectionError)
        or (isinstance(each, OSError) and each.errno not in _LASTING)
        for each in causes(error)
    )
    return type(error) is ValueError and not is_passing and not is_lost(error)


def _pause_s(tried: int, rounds: int) -> float:
    """Pause after a try; longer where processes have failed before."""
    return float(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * GROWTH**tried * 2**rounds))
