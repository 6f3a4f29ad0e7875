"""Pieces of work as Ray tasks whose results come back one after the other, in the order of the pieces."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import ray
import ray.exceptions

from uniemo_ray.distributed.waiting import waiting_shown
from uniemo_ray.pools import Pool
from uniemo_ray.store.errors import StoreError
from uniemo_ray.store.steps import current_step
from uniemo_ray.text import first_line

RETRIES = 2
"""How often a piece is tried again after its process died or storage failed."""
T = TypeVar("T")
R = TypeVar("R")


def in_order(
    work: Callable[[T], R],
    items: Sequence[T],
    *,
    pool: Pool,
    what: str,
    at_once: int | None = None,
) -> Iterator[R]:
    """The result of each piece, in the order of `items`; what a task raises is raised here, as it was.

    At most `pool.actors` tasks run or have a result that was not taken yet: results do not pile up. The
    caller adds them up in a fixed order, so that sums of floats do not depend on who was faster. A single
    piece is done here: a task would take longer to start.

    Args:
        work: what to do with a piece; it is pickled.
        items: the pieces.
        pool: tasks at a time, what each reserves, and its machines.
        what: the pieces are part of, for an error.
        at_once: fewer tasks at a time than `pool.actors`, for large results.
    """
    if len(items) <= 1:
        yield from map(work, items)
        return
    task = _task(pool)
    shared, waiting = ray.put(work), iter(items)
    most = min(pool.actors, at_once or pool.actors)
    running: deque[Any] = deque()
    with _explained(what, running, pool):
        while True:
            while len(running) < most and (item := next(waiting, _END)) is not _END:
                running.append(task.remote(shared, item))
            if not running:
                return
            yield ray.get(running.popleft())


def total(
    work: Callable[[T], R],
    items: Sequence[T],
    *,
    add: Callable[[R, R], R],
    pool: Pool,
    what: str,
    at_once: int,
) -> R:
    """The results of one piece or more, added up in the order of `items`.

    Tasks add as well: of results that are hundreds of megabytes large, only the last reaches the driver.

    Args:
        work: what to do with a piece; it is pickled.
        items: the pieces.
        add: two results to their sum; it is pickled.
        pool: as for `in_order`.
        what: the pieces are part of, for an error.
        at_once: pieces that are under way or wait to be added, at most.
    """
    if len(items) == 1:
        return work(items[0])
    task = _task(pool)
    shared, plus = ray.put(work), ray.put(add)
    sums: deque[Any] = deque()
    with _explained(what, sums, pool):
        for item in items:
            part = task.remote(shared, item)
            sums.append(_add_task(pool).remote(plus, sums[-1], part) if sums else part)
            if len(sums) > min(pool.actors, at_once):
                ray.wait([sums.popleft()], fetch_local=False)
        result: R = ray.get(sums[-1])
        return result


@contextmanager
def _explained(what: str, running: Iterable[Any], pool: Pool) -> Iterator[None]:
    """What a task raises, as it was; what is left at the end is cancelled."""
    try:
        with waiting_shown(current_step(), replace(pool, gpus=0.0, min_actors=1)):
            yield
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise StoreError(
            f"a piece of the {what} died {RETRIES + 1} times ({first_line(error)}): give it more "
            "memory (resources.memory_gb_per_actor, or memory_gb of its pool), or fewer actors to a machine, "
            "and submit again"
        ) from error
    finally:
        for ref in running:
            ray.cancel(ref)


def _task(pool: Pool) -> Any:
    return ray.remote(_call).options(**_reserved(pool))


def _add_task(pool: Pool) -> Any:
    return ray.remote(_add).options(**{**_reserved(pool), "num_cpus": 0})


def _reserved(pool: Pool) -> dict[str, Any]:
    return {
        **pool.selectors(),
        "num_cpus": pool.cpus,
        "memory": pool.memory_bytes,
        "max_retries": RETRIES,
        "retry_exceptions": [OSError, StoreError],
    }


_END: Any = object()


def _call(work: Callable[[T], R], item: T) -> R:
    return work(item)


def _add(add: Callable[[R, R], R], first: R, second: R) -> R:
    return add(first, second)
