"""The pool of machines that does a step's work."""

from typing import cast

from uniemo_ray.config import Config
from uniemo_ray.pools import Pool, PoolName, find_pool
from uniemo_ray.store.steps import StepContext


def pool_of(context: StepContext, config: Config) -> Pool:
    """The pool that the step's row names, with the run's settings.

    Raises:
        ValueError: the row names none.
    """
    if not context.pool:
        raise ValueError(f"step {context.name} starts work on the cluster, but its row names no pool")
    return find_pool(config, cast(PoolName, context.pool))
