"""What each pool of a run takes at most, for how long, and what that costs."""

from collections.abc import Mapping
from dataclasses import dataclass

from uniemo_ray.config import Config
from uniemo_ray.pools import POOLS, Pool, PoolName, find_painters, find_pool
from uniemo_ray.sizing.gpus import GpuHours
from uniemo_ray.sizing.workload import Cost


@dataclass(frozen=True, kw_only=True)
class PoolWork:
    """A pool at its largest."""

    name: str
    shown: str
    """With its labels."""
    processes: int
    machines: int
    cpus: int
    """Of all processes, as are the next two."""
    gpus: float
    memory_gb: float
    hours: float | None
    """Time of its work with all processes; None where no rate and no type of GPU tells it."""
    price: float
    """Of one machine for one hour; 0 where it is not set."""

    @property
    def cost(self) -> float | None:
        """Of all its machines in that time."""
        return None if self.hours is None or not self.price else self.hours * self.machines * self.price


def pool_work(
    config: Config, *, cost: Cost | None, hours: GpuHours | None, per_machine: Mapping[str, int] | None = None
) -> tuple[PoolWork, ...]:
    """Every pool of a run.

    Args:
        config: of the run.
        cost: hours by measured rates, which count before estimated ones.
        hours: estimated hours.
        per_machine: processes of a pool that share a machine; one where it is not named.

    Raises:
        ValueError: `per_machine` names no pool, or no processes.
    """
    per_machine = per_machine or {}
    for name, count in per_machine.items():
        if name not in POOLS or count < 1:
            raise ValueError(
                f"--per-machine {name}={count}: expected one of {', '.join(POOLS)} and 1 or more"
            )
    return tuple(_work(config, name, cost, hours, per_machine.get(name, 1)) for name in POOLS)


def _work(config: Config, name: PoolName, cost: Cost | None, hours: GpuHours | None, shared: int) -> PoolWork:
    pool = find_painters(config) if name == "generate" else find_pool(config, name)
    return PoolWork(
        name=name,
        shown=pool.shown,
        processes=pool.actors,
        machines=-(-pool.actors // shared),
        cpus=pool.actors * pool.cpus,
        gpus=pool.actors * pool.gpus,
        memory_gb=pool.actors * pool.memory_gb,
        hours=_hours(pool, cost, hours),
        price=pool.prices.of(dict(pool.labels or {})),
    )


def _hours(pool: Pool, cost: Cost | None, hours: GpuHours | None) -> float | None:
    measured = {} if cost is None else {"train": cost.training_hours, "generate": cost.generation_hours}
    if (found := measured.get(pool.name)) is not None:
        return found
    if hours is None or not pool.gpus:
        return None
    estimated = {"train": hours.training, "generate": hours.generation, "features": hours.frozen}
    return estimated[pool.name] / (pool.actors * pool.gpus)
