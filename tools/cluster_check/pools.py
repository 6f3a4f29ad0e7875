"""Pools against worker groups and machine types: whether every kind of work has a machine that takes it."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tools.cluster_check.documents import Cluster, parse
from tools.cluster_check.faults import Fault
from uniemo_ray.config import Config

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


def read_pools(path: Path) -> tuple[dict[str, Pool], list[Fault]]:
    """The pools of a file, and what is wrong with it."""
    docs, faults = parse(path.read_text(), path.name)
    pools = {}
    for name, value in (docs[0] if docs else {}).items():
        try:
            pools[name] = Pool.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            faults.append(Fault(path.name, f"{name}.{'.'.join(map(str, first['loc']))}", first["msg"]))
    return pools, faults + [
        fault for name, pool in pools.items() for fault in _bad_labels(name, pool, path.name)
    ]


def _bad_labels(name: str, pool: Pool, file: str) -> list[Fault]:
    from ray._private.label_utils import validate_label_selector

    found = []
    for labels in (pool.labels, *pool.fallback):
        if problem := validate_label_selector(labels):
            found.append(Fault(file, name, str(problem)))
    return found


def pools_of_run(config: Config) -> dict[str, Pool]:
    """What the actors and training workers of a run ask for today: no labels."""
    own = config.resources
    gpus, memory_gb = float(own.use_gpu), own.memory_gb_per_actor
    return {
        "a training worker": Pool(cpus=own.cpus_per_worker, gpus=gpus, memory_gb=LITTLE_GB),
        "an actor": Pool(cpus=own.cpus_per_worker, gpus=gpus * own.gpus_per_actor, memory_gb=memory_gb),
        "an actor that generates": Pool(
            cpus=max(config.generation.threads, own.cpus_per_worker), gpus=gpus, memory_gb=memory_gb
        ),
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
            matching = [found for found in machines if _matches(labels, found.labels)]
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


def _matches(wanted: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Ray's selectors: `value`, `!value`, `in(a, b)`, `!in(a, b)`."""
    return all(_accepts(value, labels.get(key)) for key, value in wanted.items())


def _accepts(selector: str, label: str | None) -> bool:
    is_not, rest = selector.startswith("!"), selector.removeprefix("!")
    is_list = rest.startswith("in(") and rest.endswith(")")
    values = [value.strip() for value in rest[3:-1].split(",")] if is_list else [rest]
    return (label in values) != is_not


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
