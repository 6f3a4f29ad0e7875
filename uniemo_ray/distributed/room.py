"""Which steps run side by side: as many as the cluster has room for."""

from collections.abc import Sequence
from dataclasses import dataclass

import ray

from uniemo_ray.config import Config
from uniemo_ray.distributed.shards.progress import count_nodes
from uniemo_ray.store.steps import Step


@dataclass(frozen=True)
class Demand:
    """What a step reserves in the cluster; memory in GB."""

    cpus: float = 0.0
    gpus: float = 0.0
    memory_gb: float = 0.0

    def __add__(self, other: "Demand") -> "Demand":
        """Of two steps together."""
        return Demand(self.cpus + other.cpus, self.gpus + other.gpus, self.memory_gb + other.memory_gb)

    def times(self, count: int) -> "Demand":
        """Of so many equal processes."""
        return Demand(self.cpus * count, self.gpus * count, self.memory_gb * count)

    def fits(self, total: "Demand") -> bool:
        """Whether the cluster has all of it."""
        return self.cpus <= total.cpus and self.gpus <= total.gpus and self.memory_gb <= total.memory_gb


def demand(step: Step, config: Config, *, nodes: int, is_running: bool) -> Demand:
    """What a step reserves: a pool that starts its smallest number of actors, one that runs its largest.

    So a pool that grows never takes what another step waits for. On a single machine the driver's own work
    counts as one CPU.
    """
    resources = config.resources
    if step.place == "driver":
        return Demand(cpus=1 if nodes == 1 else 0)
    most = max(resources.actors, config.generation.actors)
    cpus, gpus = resources.cpus_per_worker, 1 if resources.use_gpu else 0
    if step.place == "workers":
        return Demand(cpus, gpus).times(resources.most_workers if is_running else resources.least_workers)
    actor = Demand(cpus, gpus * resources.gpus_per_actor, resources.memory_gb_per_actor)
    return actor.times(most if is_running else min(resources.min_actors, most))


class ClusterRoom:
    """Tells by the cluster's resources whether a step may start beside those that run.

    Args:
        config: of the run.
    """

    def __init__(self, config: Config) -> None:
        self._config = config

    def __call__(self, step: Step, running: Sequence[Step]) -> bool:
        """Whether it may: there are fewer than `resources.parallel_steps`, and it fits beside them."""
        if len(running) >= self._config.resources.parallel_steps:
            return False
        if step.place == "driver" and any(other.place == "driver" for other in running):
            return False
        total, nodes = ray.cluster_resources(), count_nodes()
        wanted = demand(step, self._config, nodes=nodes, is_running=False)
        for other in running:
            wanted += demand(other, self._config, nodes=nodes, is_running=True)
        has = Demand(total.get("CPU", 0), total.get("GPU", 0), total.get("memory", 0) / 2**30)
        return wanted.fits(has)
