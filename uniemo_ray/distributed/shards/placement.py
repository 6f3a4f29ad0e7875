"""On which nodes a pool may start actors."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from uniemo_ray.distributed.shards.health import (
    FAILURES,
    Health,
    NoActorError,
    Note,
    alive,
    failures_by_node,
)
from uniemo_ray.pools import Pool

logger = logging.getLogger(__name__)


class Placement:
    """What Ray Data asks on the driver before it starts an actor of one pool."""

    def __init__(self, health: Health, pool: Pool) -> None:
        """For the actors of these notes, which may run on the machines of this pool."""
        self.health, self.pool = health, pool
        self._number = 0
        self._placed: set[str] = set()
        self._told: set[str] = set()

    def __call__(self) -> dict[str, Any]:
        """Ray's options for the next actor: nodes that keep failing are left out, those on them go on.

        They replace those of the data set, so they name the labels of the pool as well.

        Raises:
            NoActorError: every node is left out and every actor so far is gone.
        """
        notes = self.health.notes()
        left_out = {node: count for node, count in failures_by_node(notes).items() if count >= FAILURES}
        self._tell(notes, left_out)
        self._number += 1
        name = f"{self.health.pool}-{self._number}"
        if not left_out or _has_other(left_out, self.pool):
            self._placed.add(name)
        elif not self._placed & alive(self.health.pool, notes):
            raise NoActorError(
                f"no actor of the pool can start: {sum(note.is_failure for note in notes)} starts failed, "
                f"the last one on {self.health.tell(_last(notes))}"
            )
        # else others run or load, and this one waits for a node that may come
        avoided = {"ray.io/node-id": f"!in({','.join(sorted(left_out))})"} if left_out else None
        return {"name": name, **self.pool.selectors(besides=avoided)}

    def _tell(self, notes: Sequence[Note], left_out: Mapping[str, int]) -> None:
        for node in sorted(left_out.keys() - self._told):
            self._told.add(node)
            last = _last([note for note in notes if note.node == node])
            logger.warning(
                "no more actors start on a node where they failed %d times: %s",
                left_out[node],
                self.health.tell(last),
            )


def _last(notes: Sequence[Note]) -> Note:
    return max((note for note in notes if note.is_failure), key=lambda note: note.noted_ms)


def _has_other(left_out: Mapping[str, int], pool: Pool) -> bool:
    """Whether the cluster has another node of the pool that is large enough."""
    return any(
        node["Alive"]
        and node["NodeID"] not in left_out
        and pool.accepts(node.get("Labels") or {})
        and pool.room_on(node["Resources"]) > 0
        for node in ray.nodes()
    )
