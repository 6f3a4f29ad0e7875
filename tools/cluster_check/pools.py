"""Pools against worker groups and machine types: whether every kind of work has a machine that takes it."""

import copy
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tools.cluster_check.documents import Cluster
from tools.cluster_check.faults import Fault
from uniemo_ray.config import Config
from uniemo_ray.pools import POOLS, find_painters, find_pool, matches

GB = 1_000_000_000
LITTLE_GB = 0.001
"""Memory of work that reserves none."""
NODE_SHARE = 0.65
"""Share of a Pod's memory that its Ray node offers at least. Ray's autoscaler counts the whole limit, but the
object store takes its part: work that fits the limit alone would start Pods for ever and never run."""


class Pool(BaseModel):
    """What one actor of a pool takes, and which machines it accepts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpus: float = Field(ge=0)
    gpus: float = Field(ge=0)
    memory_gb: float = Field(gt=0)
    labels: dict[str, str] = {}
    fallback: list[dict[str, str]] = []


class Machines(BaseModel):
    """A worker group or a machine type as Ray sees it.

    `memory` is what a node offers, and `counted` what the autoscaler counts with, both in bytes.
    """

    name: str
    cpus: float
    gpus: float
    memory: float
    counted: float
    labels: dict[str, str]


def pools_of_run(config: Config) -> dict[str, Pool]:
    """What the processes of a run ask for, by the settings of its pools."""
    pools = {name: find_pool(config, name) for name in POOLS} | {"generate": find_painters(config)}
    return {
        name: Pool(
            cpus=pool.cpus,
            gpus=pool.gpus,
            memory_gb=round(pool.memory_bytes / GB, 2) or LITTLE_GB,
            labels=dict(pool.labels or {}),
            fallback=[dict(labels) for labels in pool.fallback],
        )
        for name, pool in pools.items()
    }


def pools_of_service(config: Mapping[str, Any]) -> dict[str, Pool]:
    """What the replicas of a Serve config ask for; they reserve no memory."""
    pools = {}
    for application in config.get("applications") or []:
        for name in ("understanding", "generation"):
            own = (application.get("args") or {}).get(name) or {}
            pools[f"a replica for {name}"] = Pool(
                cpus=own.get("num_cpus", 0.5), gpus=own.get("num_gpus", 0), memory_gb=LITTLE_GB
            )
    return pools


def of_groups(cluster: Cluster) -> list[Machines]:
    """Worker groups as Ray's autoscaler sees them, with the memory that their nodes offer."""
    from ray.autoscaler._private.kuberay.autoscaling_config import (
        _generate_available_node_types_from_ray_cr_spec,
    )

    types = _generate_available_node_types_from_ray_cr_spec(copy.deepcopy(cluster.spec))
    return [found for found in of_types(types, share=NODE_SHARE) if found.name != "headgroup"]


def of_types(types: Mapping[str, Any], *, share: float = 1.0) -> list[Machines]:
    """Machine types of Ray's autoscaler; `share` of the memory they name is what their nodes offer."""
    return [
        Machines(
            name=name,
            cpus=value["resources"].get("CPU", 0),
            gpus=value["resources"].get("GPU", 0),
            memory=share * value["resources"].get("memory", 0),
            counted=value["resources"].get("memory", 0),
            labels=value.get("labels") or {},
        )
        for name, value in types.items()
    ]


def check_pools(pools: Mapping[str, Pool], machines: list[Machines], file: str, where: str) -> list[Fault]:
    """Pools, and alternatives of pools, that no machine takes."""
    faults = []
    for name, pool in pools.items():
        for labels in (pool.labels, *pool.fallback):
            shown = " with " + ", ".join(f"{k}={v}" for k, v in labels.items()) if labels else ""
            matching = [found for found in machines if matches(labels, found.labels)]
            if not matching:
                faults.append(Fault(file, where, f"pool {name}: there are no machines{shown}"))
            elif not any(_holds(pool, found) for found in matching):
                faults.append(Fault(file, where, f"pool {name}: {_too_small(pool, matching)}{shown}"))
            else:
                faults += [
                    Fault(file, where, f"pool {name}: {_never_placed(pool, found)}")
                    for found in matching
                    if _is_trap(pool, found)
                ]
                faults += [
                    Fault(file, where, f"pool {name}: {line}")
                    for found in matching
                    if (line := _crowded(pool, found)) is not None
                ]
    return list(dict.fromkeys(faults))


def _holds(pool: Pool, found: Machines) -> bool:
    return found.cpus >= pool.cpus and found.gpus >= pool.gpus and found.memory >= pool.memory_gb * GB


def _too_small(pool: Pool, matching: list[Machines]) -> str:
    sizes = "; ".join(
        f"{m.name} offers {m.cpus:g} CPUs, {m.gpus:g} GPUs and {m.memory / GB:.1f} GB" for m in matching
    )
    return f"one takes {pool.cpus:g} CPUs, {pool.gpus:g} GPUs and {pool.memory_gb:g} GB, and {sizes}"


def _is_trap(pool: Pool, found: Machines) -> bool:
    """Whether the autoscaler would start such a machine for an actor that its node does not take."""
    fits = found.cpus >= pool.cpus and found.gpus >= pool.gpus and bool(found.gpus) == bool(pool.gpus)
    return fits and found.memory < pool.memory_gb * GB <= found.counted


def _never_placed(pool: Pool, found: Machines) -> str:
    return (
        f"one takes {pool.memory_gb:g} GB; the autoscaler counts {found.counted / GB:.1f} GB for "
        f"{found.name}, but its node offers {found.memory / GB:.1f}, so Pods would start for ever"
    )


def _crowded(pool: Pool, found: Machines) -> str | None:
    """The fault of machines whose CPUs and GPUs take more actors than their memory does.

    Machines of another kind than the pool's (GPUs for work without) are not its own, and are left out.
    """
    if bool(found.gpus) != bool(pool.gpus) or not _holds(pool, found):
        return None
    rooms = [found.gpus / pool.gpus] if pool.gpus else []
    rooms += [found.cpus / pool.cpus] if pool.cpus else []
    actors = int(min(rooms)) if rooms else 1
    needed = actors * pool.memory_gb
    if needed * GB <= found.memory:
        return None
    offered = f"{found.name} offers {found.memory / GB:.1f}"
    return f"{actors} actors fit by CPUs and GPUs and take {needed:g} GB; a node of {offered}"
