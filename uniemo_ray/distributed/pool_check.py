"""Pools against the cluster: labels that no machine has are said in one line before anything starts."""

import difflib
import logging
from collections.abc import Iterable, Sequence

from ray._private.label_utils import validate_label_selector

from uniemo_ray.config import Config
from uniemo_ray.distributed.autoscaling import Growth, MachineType, growth
from uniemo_ray.distributed.waiting import Nodes, living_nodes
from uniemo_ray.pools import POOLS, Labels, Pool, PoolName, find_painters, find_pool, matches
from uniemo_ray.text import one_line

logger = logging.getLogger(__name__)


def check_labels(config: Config) -> None:
    """Raise ValueError for labels that Ray would refuse; no cluster is needed."""
    for name in POOLS:
        own = getattr(config.resources.pools, name)
        for field, labels in (("labels", own.labels), *(("fallback", one) for one in own.fallback)):
            if problem := validate_label_selector(labels):
                raise ValueError(f"resources.pools.{name}.{field}: {one_line(ValueError(problem))}")


def check_pool_machines(config: Config, names: Iterable[str]) -> None:
    """Look for the machines of pools in the cluster that this driver is connected to.

    Args:
        config: of the run.
        names: pools that its steps use.

    Raises:
        ValueError: one line for each pool whose labels no machine has, and no type of machine that the
            autoscaler may start, or all of these are too small for one process.
    """
    pools = [pool for name in POOLS if name in set(names) for pool in _pools(config, name)]
    if any(pool.labels for pool in pools):
        judge_pools(pools, living_nodes(), growth())


def judge_pools(pools: Sequence[Pool], nodes: Nodes, grows: Growth) -> None:
    """The same of machines that are given."""
    machines = [
        MachineType(str(node.get("NodeManagerHostname", "")), node["Resources"], node.get("Labels") or {})
        for node in nodes
    ]
    machines += grows.types or ()
    faults = [fault for pool in pools if pool.labels and (fault := _fault(pool, machines, grows))]
    if not faults:
        return
    if grows.is_static or grows.types is not None:
        raise ValueError("\n".join(dict.fromkeys(faults)))
    for fault in dict.fromkeys(faults):
        logger.warning("%s. Nobody can tell whether such a machine comes; its steps wait for one", fault)


def _fault(pool: Pool, machines: Sequence[MachineType], grows: Growth) -> str | None:
    """What keeps a pool from ever having a machine."""
    own = [machine for machine in machines if pool.accepts(machine.labels)]
    if not own:
        what = "no machine" if grows.types is None else "no machine and no type of the autoscaler"
        hint = _closest(pool, [machine.labels for machine in machines])
        return f"resources.pools.{pool.name}.labels: {what} has {pool.shown_labels}{hint}"
    if not any(pool.room_on(machine.resources) for machine in own):
        names = ", ".join(dict.fromkeys(machine.name for machine in own))
        return (
            f"resources.pools.{pool.name}: one process takes {_needs(pool)}, which no machine with "
            f"{pool.shown_labels} offers ({names}); the type of an autoscaler must state its memory as well"
        )
    return None


def _pools(config: Config, name: PoolName) -> list[Pool]:
    return [find_pool(config, name), *([find_painters(config)] if name == "generate" else [])]


def _needs(pool: Pool) -> str:
    parts = [f"{pool.cpus} CPUs", f"{pool.gpus:g} GPUs" if pool.gpus else ""]
    parts.append(f"{pool.memory_gb:g} GB of memory" if pool.memory_gb else "")
    return ", ".join(filter(None, parts))


def _closest(pool: Pool, known: Sequence[Labels]) -> str:
    """A hint at what was probably meant."""
    has = sorted(
        {f"{key}={value}" for labels in known for key, value in labels.items() if "node-id" not in key}
    )
    wanted = [
        f"{key}={value}"
        for labels in pool.alternatives
        for key, value in labels.items()
        if not any(matches({key: value}, one) for one in known)
    ]
    for name in wanted:
        if near := difflib.get_close_matches(name, has, n=1):
            return f"; did you mean {near[0]}?"
    return ""
