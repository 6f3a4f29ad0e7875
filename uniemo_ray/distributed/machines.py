"""Asks the machines of a cluster what they lack for a run, before anything expensive."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import ray
from ray.exceptions import RayError

from uniemo_ray.config import Config
from uniemo_ray.distributed.ask_nodes import ask_nodes
from uniemo_ray.machine_check import Needs, faults_here, needs_of
from uniemo_ray.pools import POOLS, Labels, Pool, find_pool
from uniemo_ray.text import first_line

logger = logging.getLogger(__name__)
NO_LABELS: Labels = {}
PATIENCE_S = 90.0
"""How long machines may take to answer: a process has to start and to import torch there. Unit: s."""


class Machine(NamedTuple):
    """A machine of the cluster."""

    node: str
    name: str
    cpus: float
    gpus: float
    labels: Labels = NO_LABELS


Ask = Callable[[Sequence[Machine], Needs], Mapping[str, Sequence[str] | None]]
"""Machines to what each lacks, by node; None of one that has not answered."""


def check_machines(config: Config, *, is_ingested: bool = False) -> None:
    """Ask each machine that workers may be placed on.

    Where the driver's machine is the only one, and neither a GPU nor a tracker's package is asked for,
    nothing is: the driver has just looked at its own folders, and a process that answers takes a second to
    start.

    Args:
        config: of the run.
        is_ingested: whether the data set's shards are there.

    Raises:
        ValueError: one line for each fault, which names the machine.
    """
    machines = _machines()
    own = ray.get_runtime_context().get_node_id()
    is_plain = not any(pool.gpus for pool in _pools(config)) and set(config.tracking) <= {"tensorboard"}
    if is_plain and [machine.node for machine in machines] == [own]:
        machines = []
    judge_machines(machines, config, ask=_ask, is_ingested=is_ingested)


def judge_machines(
    machines: Sequence[Machine], config: Config, *, ask: Ask, is_ingested: bool = False
) -> None:
    """The same, of machines that are given and answer by `ask`."""
    able = [machine for machine in machines if _can_host(machine, _pools(config))]
    if machines and not able:
        _warn_of_small(machines, find_pool(config, "train"))
    if not able:
        return
    on_gpus = [pool for pool in _pools(config) if pool.gpus]
    needs = needs_of(config, is_ingested=is_ingested)
    answers: dict[str, Sequence[str] | None] = {}
    for use_gpu in (True, False):
        asked = [machine for machine in able if _can_host(machine, on_gpus) is use_gpu]
        if asked:
            answers |= ask(asked, replace(needs, use_gpu=use_gpu))
    names = {machine.node: machine.name for machine in able}
    for node, found in answers.items():
        if found is None:
            logger.warning("%s was not checked: it has not answered within %g s", names[node], PATIENCE_S)
    faults = [f"{names[node]} {fault}" for node, found in answers.items() for fault in found or ()]
    if faults:
        raise ValueError("\n".join(faults))


def _pools(config: Config) -> list[Pool]:
    return [find_pool(config, name) for name in POOLS if name != "data"]


def _can_host(machine: Machine, pools: Sequence[Pool]) -> bool:
    """Whether a process of one of these pools may be placed there."""
    return any(
        pool.accepts(machine.labels) and machine.cpus >= pool.cpus and machine.gpus >= pool.gpus
        for pool in pools
    )


def _warn_of_small(machines: Sequence[Machine], pool: Pool) -> None:
    wanted = f"{pool.cpus} CPUs" + (" and a GPU" if pool.gpus else "")
    largest = max(machines, key=lambda machine: (machine.gpus if pool.gpus else 0, machine.cpus))
    logger.warning(
        "no machine of the cluster has the %s of one worker (resources.cpus_per_worker); the largest, "
        "%s, has %g CPUs and %g GPUs. Work waits until an autoscaler brings a larger one",
        wanted,
        largest.name,
        largest.cpus,
        largest.gpus,
    )


def _machines() -> list[Machine]:
    return [
        Machine(
            node["NodeID"],
            str(node.get("NodeManagerHostname") or node["NodeManagerAddress"]),
            node["Resources"].get("CPU", 0.0),
            node["Resources"].get("GPU", 0.0),
            node.get("Labels") or {},
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def _ask(machines: Sequence[Machine], needs: Needs) -> dict[str, list[str] | None]:
    answers = ask_nodes(
        faults_here,
        [machine.node for machine in machines],
        needs,
        timeout_s=PATIENCE_S,
        gpus=1 if needs.use_gpu else 0,
    )
    return {
        node: [f"cannot run a task: {first_line(answer)}"] if isinstance(answer, RayError) else answer
        for node, answer in answers.items()
    }
