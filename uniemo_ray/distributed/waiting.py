"""Work that waits for machines says so: what it waits for, and since when."""

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray

from uniemo_ray.distributed.beside import beside
from uniemo_ray.pools import Pool

logger = logging.getLogger(__name__)
EVERY_S = 10.0
Nodes = Sequence[Mapping[str, Any]]


def living_nodes() -> list[dict[str, Any]]:
    """Machines that are in the cluster now, as `ray.nodes` describes them."""
    return [node for node in ray.nodes() if node["Alive"]]


def room_in(pool: Pool, nodes: Nodes) -> int:
    """Processes of a pool that these machines take, if nothing else runs on them."""
    return sum(pool.room_on(node["Resources"]) for node in nodes if pool.accepts(node.get("Labels") or {}))


def light(pool: Pool) -> Pool:
    """The same machines for a single task of one CPU."""
    return replace(pool, cpus=1, gpus=0.0, memory_gb=0.0, min_actors=1)


class Waiting:
    """Tells what a step waits for while the cluster has no room for its smallest number of processes.

    Args:
        step: name for the log.
        pool: its machines, and what one process takes of them.
    """

    def __init__(self, step: str, pool: Pool) -> None:
        self.step, self.pool = step, pool
        self._since: float | None = None

    def line(self, nodes: Nodes, *, now: float) -> str | None:
        """What it waits for at this time, in seconds of a steady clock; None when it need not wait."""
        room, wanted = room_in(self.pool, nodes), self.pool.min_actors
        if room >= wanted:
            self._since = None
            return None
        self._since = now if self._since is None else self._since
        since = f"since {_duration(now - self._since)}"
        if room == 0:
            return f"{self.step}: waits for a machine of pool {self.pool.shown} {since}"
        what = f"more machines of pool {self.pool.shown}, with room for {room} of {wanted} processes"
        return f"{self.step}: waits for {what} {since}"


@contextmanager
def waiting_shown(step: str, pool: Pool, *, every_s: float = EVERY_S) -> Iterator[None]:
    """Log what the work inside waits for, at once and every few seconds, as long as it has no machine."""
    waiting = Waiting(step or "work", pool)

    def show(is_over: threading.Event) -> None:
        while not is_over.is_set():
            if said := waiting.line(living_nodes(), now=time.monotonic()):
                logger.info("%s", said)
            is_over.wait(every_s)

    with beside(show, name="uniemo-waiting", within_s=every_s):
        yield


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.0f} min"
