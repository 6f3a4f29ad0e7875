"""One question to each of several machines of a cluster, answered there."""

import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

Answer = TypeVar("Answer")


def ask_nodes(
    question: Callable[..., Answer], nodes: Iterable[str], *args: object, timeout_s: float, gpus: float = 0
) -> dict[str, Answer | RayError | None]:
    """What a function returns on each machine.

    Args:
        question: Pickled; takes no CPU there.
        nodes: Ray's ids of the machines.
        *args: Of the question.
        timeout_s: Time for all of them together, in seconds.
        gpus: What the question takes of each machine.

    Returns:
        Node to its answer: an error where it could not run, None where it has not answered in time.
    """
    task: Any = ray.remote(question)
    options = {"num_cpus": 0, "num_gpus": gpus, "max_retries": 0}
    asked = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False), **options).remote(
            *args
        ): node
        for node in nodes
    }
    found: dict[str, Answer | RayError | None] = dict.fromkeys(asked.values())
    waiting, until = list(asked), time.monotonic() + timeout_s
    while waiting and (left := until - time.monotonic()) > 0:
        ready, waiting = ray.wait(waiting, timeout=left)
        for ref in ready:
            try:
                found[asked[ref]] = ray.get(ref)
            except RayError as error:
                found[asked[ref]] = error
    for ref in waiting:
        ray.cancel(ref)  # what it waits for is another job's
    return found
