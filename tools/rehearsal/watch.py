"""What is seen of a run from outside: machines of each pool, and who works on which of them."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

RANK = "RayTrainWorker"
_PAINTER = re.compile(r"(?P<step>[a-z0-9-]+?)-[0-9a-f]{12}-\d+$")
POOL = "uniemo/pool"


@dataclass
class Record:
    """What was seen so far."""

    groups: Mapping[str, Mapping[str, str]]
    """Labels of each group's machines."""
    counts: list[tuple[float, dict[str, int]]] = field(default_factory=list)
    """Seconds since the start, and machines by group, whenever that changed."""
    places: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Step, or `RayTrainWorker`, to the pools of the machines on which its processes were seen."""

    def add(self, nodes: list[Mapping[str, Any]], actors: Mapping[str, Any], *, seconds: float) -> bool:
        """Note a look; whether the machines are others than at the look before."""
        labels = {node["NodeID"]: node.get("Labels") or {} for node in nodes if node["Alive"]}
        for actor in actors.values():
            step, where = _step(actor), labels.get(actor["Address"]["NodeID"])
            if step and where is not None and actor["State"] == "ALIVE":
                self.places[step][where.get(POOL, "head")] += 1
        groups = Counter(filter(None, map(self._group, labels.values())))
        is_new = not self.counts or self.counts[-1][1] != dict(groups)
        if is_new:
            self.counts.append((seconds, dict(groups)))
        return is_new

    def _group(self, labels: Mapping[str, str]) -> str | None:
        """The group of a machine; None for the head."""
        return next((name for name, own in self.groups.items() if own.items() <= labels.items()), None)

    def most(self) -> dict[str, int]:
        """Machines of each group at their highest number."""
        found: Counter[str] = Counter()
        for _, groups in self.counts:
            found |= Counter(groups)
        return dict(found)


def _step(actor: Mapping[str, Any]) -> str | None:
    if actor["ActorClassName"].endswith(RANK):
        return RANK
    found = _PAINTER.match(actor.get("Name") or "")
    return found["step"] if found else None
