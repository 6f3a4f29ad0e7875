"""The rank filter on a cluster: Ray decides where its pieces run and how many at a time."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import ray
import ray.exceptions

from uniemo_ray.config import FilterConfig, ResourceConfig
from uniemo_ray.feedback.rank_filter import ROWS_PER_TASK, filter_shards
from uniemo_ray.feedback.verdicts import FilterSummary
from uniemo_ray.store.base import Store
from uniemo_ray.store.errors import StoreError

RETRIES = 2
"""How often a piece is tried again after its process died or storage failed."""
T = TypeVar("T")
R = TypeVar("R")


def filter_scores(
    source: Store,
    target: Store,
    *,
    config: FilterConfig,
    resources: ResourceConfig,
    folder: str = "scores",
    rows_per_task: int = ROWS_PER_TASK,
) -> FilterSummary:
    """`filter_shards` with at most `resources.actors` Ray tasks at a time.

    Args:
        source: store with committed shards of SCORES rows.
        target: gets `kept/` and `kept/summary.json`.
        config: band, scope and criteria.
        resources: tasks at a time, and the CPUs and memory that each reserves.
        folder: where the shards lie in `source`.
        rows_per_task: most rows that one task holds.

    Raises:
        FileNotFoundError, ValueError, StoreError: as `filter_shards`.
    """
    run = partial(run_tasks, resources=resources)
    return filter_shards(source, target, config=config, folder=folder, rows_per_task=rows_per_task, run=run)


def run_tasks(work: Callable[[T], R], items: Sequence[T], *, resources: ResourceConfig) -> list[R]:
    """A `Runner` of Ray tasks; what a task raises is raised here, as it was, and ends the others.

    A single item is done here: a task would take longer to start.
    """
    if len(items) == 1:
        return [work(items[0])]
    task: Any = ray.remote(_call).options(
        num_cpus=resources.cpus_per_worker,
        memory=int(resources.memory_gb_per_actor * 2**30),
        max_retries=RETRIES,
        retry_exceptions=[OSError, StoreError],
    )
    shared = ray.put(work)
    waiting = list(enumerate(items))[::-1]
    running: dict[Any, int] = {}
    results: dict[int, R] = {}
    try:
        while waiting or running:
            while waiting and len(running) < resources.actors:
                number, item = waiting.pop()
                running[task.remote(shared, item)] = number
            ready, _ = ray.wait(list(running))
            results.update({running.pop(ref): ray.get(ref) for ref in ready})
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise StoreError(
            f"a piece of the filter died {RETRIES + 1} times ({first}): give it more "
            "resources.memory_gb_per_actor, or fewer actors to a machine, and submit again"
        ) from error
    finally:
        for ref in running:
            ray.cancel(ref)
    return [results[number] for number in range(len(items))]


def _call(work: Callable[[T], R], item: T) -> R:
    return work(item)
