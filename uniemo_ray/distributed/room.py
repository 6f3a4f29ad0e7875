"""Which steps run side by side: as many as the machines of their pools have room for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from uniemo_ray.config import Config
from uniemo_ray.distributed.waiting import Nodes, living_nodes
from uniemo_ray.pools import ANYWHERE, Pool, PoolName, find_painters, find_pool
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


def pool_of_step(step: Step, config: Config) -> Pool:
    """The pool of a step; a step that names none is at home anywhere."""
    name = step.pool or {"driver": "", "actors": "features", "workers": "train"}[step.place]
    return find_pool(config, cast(PoolName, name)) if name else ANYWHERE


def demand(step: Step, config: Config, *, nodes: int, is_running: bool) -> Demand:
    """What a step reserves: a pool that starts its smallest number of actors, one that runs its largest.

    So a pool that grows never takes what another step waits for. On a single machine the driver's own work
    counts as one CPU.
    """
    if step.place == "driver":
        return Demand(cpus=1 if nodes == 1 else 0)
    pool = pool_of_step(step, config)
    painters = find_painters(config)
    most = max(pool.actors, painters.actors) if step.place == "actors" else pool.actors
    process = Demand(pool.cpus, pool.gpus, pool.memory_gb)
    return process.times(most if is_running else pool.min_actors)


class ClusterRoom:
    """Tells by the machines of their pools whether a step may start beside those that run.

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
        nodes = living_nodes()
        rivals = [other for other in running if self._share_machines(step, other, nodes)]
        if not rivals:
            return True  # also where its machines have to come first
        own = set[str]().union(*(self._machines(each, nodes) for each in (step, *rivals)))
        wanted = demand(step, self._config, nodes=len(nodes), is_running=False)
        for other in rivals:
            wanted += demand(other, self._config, nodes=len(nodes), is_running=True)
        return wanted.fits(_total([node for node in nodes if node["NodeID"] in own]))

    def _machines(self, step: Step, nodes: Nodes) -> set[str]:
        pool = pool_of_step(step, self._config)
        return {node["NodeID"] for node in nodes if pool.accepts(node.get("Labels") or {})}

    def _share_machines(self, step: Step, other: Step, nodes: Nodes) -> bool:
        """Whether two steps may want the same machine, also one that is not there yet."""
        one, two = (pool_of_step(each, self._config) for each in (step, other))
        return bool(self._machines(step, nodes) & self._machines(other, nodes)) or not _are_apart(one, two)


def _are_apart(one: Pool, two: Pool) -> bool:
    """Whether no machine can belong to both: each pair of alternatives asks a label for different values."""
    return all(
        any(
            key in second and not _is_operator(value + second[key]) and second[key] != value
            for key, value in first.items()
        )
        for first in one.alternatives
        for second in two.alternatives
    )


def _is_operator(selectors: str) -> bool:
    return any(sign in selectors for sign in "!(")


def _total(nodes: Nodes) -> Demand:
    def sum_of(name: str) -> float:
        return float(sum(node["Resources"].get(name, 0) for node in nodes))

    return Demand(sum_of("CPU"), sum_of("GPU"), sum_of("memory") / 2**30)
