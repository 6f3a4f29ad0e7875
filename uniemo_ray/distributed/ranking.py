"""The rank filter on a cluster: Ray decides where its pieces run and how many at a time."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from uniemo_ray.config import FilterConfig
from uniemo_ray.distributed.tasks import in_order
from uniemo_ray.feedback.rank_filter import ROWS_PER_TASK, filter_shards
from uniemo_ray.feedback.verdicts import FilterSummary
from uniemo_ray.pools import Pool
from uniemo_ray.store.base import Store

T = TypeVar("T")
R = TypeVar("R")


def filter_scores(
    source: Store,
    target: Store,
    *,
    config: FilterConfig,
    pool: Pool,
    folder: str = "scores",
    rows_per_task: int = ROWS_PER_TASK,
) -> FilterSummary:
    """`filter_shards` with at most `pool.actors` Ray tasks at a time.

    Args:
        source: store with committed shards of SCORES rows.
        target: gets `kept/` and `kept/summary.json`.
        config: band, scope and criteria.
        pool: tasks at a time, what each reserves, and its machines.
        folder: where the shards lie in `source`.
        rows_per_task: most rows that one task holds.

    Raises:
        FileNotFoundError, ValueError, StoreError: as `filter_shards`.
    """
    run = partial(run_tasks, pool=pool)
    return filter_shards(source, target, config=config, folder=folder, rows_per_task=rows_per_task, run=run)


def run_tasks(work: Callable[[T], R], items: Sequence[T], *, pool: Pool) -> list[R]:
    """A `Runner` of Ray tasks; what a task raises is raised here, as it was, and ends the others."""
    return list(in_order(work, items, pool=pool, what="filter"))
