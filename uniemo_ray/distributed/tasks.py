"""Pieces of work as Ray tasks whose results come back one after the other, in the order of the pieces."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import ray
import ray.exceptions

from uniemo_ray.config import ResourceConfig
from uniemo_ray.store.errors import StoreError
from uniemo_ray.text import first_line

RETRIES = 2
"""How often a piece is tried again after its process died or storage failed."""
T = TypeVar("T")
R = TypeVar("R")


def in_order(
    work: Callable[[T], R],
    items: Sequence[T],
    *,
    resources: ResourceConfig,
    what: str,
    at_once: int | None = None,
) -> Iterator[R]:
    """The result of each piece, in the order of `items`; what a task raises is raised here, as it was.

    At most `resources.actors` tasks run or have a result that was not taken yet: results do not pile up. The
    caller adds them up in a fixed order, so that sums of floats do not depend on who was faster. A single
    piece is done here: a task would take longer to start.

    Args:
        work: what to do with a piece; it is pickled.
        items: the pieces.
        resources: tasks at a time, and the CPUs and memory that each reserves.
        what: the pieces are part of, for an error.
        at_once: fewer tasks at a time than `resources.actors`, for large results.
    """
    if len(items) <= 1:
        yield from map(work, items)
        return
    task = _task(resources)
    shared, waiting = ray.put(work), iter(items)
    most = min(resources.actors, at_once or resources.actors)
    running: deque[Any] = deque()
    with _explained(what, running):
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
    resources: ResourceConfig,
    what: str,
    at_once: int,
) -> R:
    """The results of one piece or more, added up in the order of `items`.

    Tasks add as well: of results that are hundreds of megabytes large, only the last reaches the driver.

    Args:
        work: what to do with a piece; it is pickled.
        items: the pieces.
        add: two results to their sum; it is pickled.
        resources: as for `in_order`.
        what: the pieces are part of, for an error.
        at_once: pieces that are under way or wait to be added, at most.
    """
    if len(items) == 1:
        return work(items[0])
    task = _task(resources)
    shared, plus = ray.put(work), ray.put(add)
    sums: deque[Any] = deque()
    with _explained(what, sums):
        for item in items:
            part = task.remote(shared, item)
            sums.append(_add_task(resources).remote(plus, sums[-1], part) if sums else part)
            if len(sums) > min(resources.actors, at_once):
                ray.wait([sums.popleft()], fetch_local=False)
        result: R = ray.get(sums[-1])
        return result


@contextmanager
def _explained(what: str, running: Iterable[Any]) -> Iterator[None]:
    """What a task raises, as it was; what is left at the end is cancelled."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise StoreError(
            f"a piece of the {what} died {RETRIES + 1} times ({first_line(error)}): give it more "
            "resources.memory_gb_per_actor, or fewer actors to a machine, and submit again"
        ) from error
    finally:
        for ref in running:
            ray.cancel(ref)


def _task(resources: ResourceConfig) -> Any:
    return ray.remote(_call).options(**_reserved(resources))


def _add_task(resources: ResourceConfig) -> Any:
    return ray.remote(_add).options(**{**_reserved(resources), "num_cpus": 0})


def _reserved(resources: ResourceConfig) -> dict[str, Any]:
    return {
        "num_cpus": resources.cpus_per_worker,
        "memory": int(resources.memory_gb_per_actor * 2**30),
        "max_retries": RETRIES,
        "retry_exceptions": [OSError, StoreError],
    }


_END: Any = object()


def _call(work: Callable[[T], R], item: T) -> R:
    return work(item)


def _add(add: Callable[[R, R], R], first: R, second: R) -> R:
    return add(first, second)
