"""Whether the cluster grows, and by which types of machines, as its autoscaler has said in its log.

Ray has no call that tells the labels of machine types. The autoscaler writes its configuration into
`monitor.log` in the head's session folder: started by `ray up`, by `ray start --autoscaling-config`, and by
KubeRay, whose autoscaler shares that folder with the head.
"""

import ast
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import yaml

from uniemo_ray.distributed.ask_nodes import ask_nodes
from uniemo_ray.distributed.waiting import living_nodes

HEAD = "node:__internal_head__"
"""Resource of the head, by Ray's own name."""
ANSWER_S = 30.0
PATIENCE_S = 15.0
"""How long an autoscaler that has just started may take to write its first lines. Unit: s."""
LOG = "monitor.log"
MOST_BYTES = 8 << 20
_NEW = re.compile(r"Using Autoscaling Config: *\n(?P<yaml>(?:(?!\d{4}-\d\d-\d\d ).*\n)*)")
_OLD = re.compile(r"StandardAutoscaler: (?P<literal>\{.*\})$", re.M)


@dataclass(frozen=True)
class MachineType:
    """A type of machine that an autoscaler starts."""

    name: str
    resources: Mapping[str, float]
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Growth:
    """How a cluster grows."""

    is_static: bool = False
    """Whether it has no autoscaler."""
    types: tuple[MachineType, ...] | None = None
    """What an autoscaler starts beside the head; None where it has not said so."""


def growth() -> Growth:
    """How this driver's cluster grows; neither static nor with types where nobody can tell."""
    head = next((node["NodeID"] for node in living_nodes() if HEAD in node["Resources"]), None)
    if head is None:
        return Growth()
    if head == ray.get_runtime_context().get_node_id():
        return read_growth(_log_here())
    found = ask_nodes(_log_here, [head], timeout_s=ANSWER_S)[head]
    return read_growth(found if isinstance(found, str) else "")


def read_growth(log: str) -> Growth:
    """How a cluster grows by the log of its autoscaler; the newest configuration counts."""
    if found := list(_NEW.finditer(log)):
        config = yaml.safe_load(found[-1]["yaml"]) or {}
    elif found := list(_OLD.finditer(log)):
        config = ast.literal_eval(found[-1]["literal"])
    else:
        return Growth()
    if "readonly" in str((config.get("provider") or {}).get("type", "")).replace("_", "").lower():
        return Growth(is_static=True)
    if not _NEW.search(log):
        return Growth()  # Ray's first autoscaler, which knows no labels
    return Growth(types=_types(config))


def _types(config: Mapping[str, Any]) -> tuple[MachineType, ...]:
    return tuple(
        MachineType(name, type_.get("resources") or {}, type_.get("labels") or {})
        for name, type_ in (config.get("available_node_types") or {}).items()
        if name != config.get("head_node_type") and type_.get("max_workers", 1)
    )


def _log_here() -> str:
    """The autoscaler's log on this machine, as far as it concerns its configuration."""
    node: Any = ray._private.worker.global_worker.node
    folder = Path(node.get_logs_dir_path())
    until = time.monotonic() + PATIENCE_S
    while True:
        text = ""
        for path in sorted(folder.glob(f"{LOG}*"), reverse=True):  # the newest last
            with path.open(encoding="utf-8", errors="replace") as file:
                text += file.read(MOST_BYTES)
        found = [*_NEW.finditer(text), *_OLD.finditer(text)]
        if found or time.monotonic() > until:
            return found[-1][0] + "\n" if found else ""
        time.sleep(0.2)
