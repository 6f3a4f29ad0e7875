"""How the processes of a pool fare on each node: notes in the target store, which outlive a process.

An actor notes that it begins to load, that it fails to load, and that it loses its accelerator. The driver
reads the notes when the pool wants another actor (`placement`).
"""

import json
import logging
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import ray
import ray.util

from uniemo_ray.store.base import Store
from uniemo_ray.text import one_line

logger = logging.getLogger(__name__)
FAILURES = 3
"""How often a node, or an actor, may fail before it is given up."""
END_S = 10.0
"""Time for the last processes of a pool to end. Unit: seconds."""
_FOLDER, _BETWEEN = "health", "~"
Kind = Literal["begun", "failed", "gone"]


class NoActorError(RuntimeError):
    """No actor of a pool can start."""


@dataclass(frozen=True)
class Note:
    """What one process of an actor has noted."""

    node: str
    """Ray's id of the node."""
    actor: str
    """Name of the actor; its next process has the same one."""
    kind: Kind
    """`begun`: it loads. `failed`: it has ended; `gone`: and Ray starts no other process of this actor."""
    began_ms: int
    """When the process began to load. Unit: milliseconds since 1970, by the node's clock."""
    noted_ms: int
    """When it was noted, by the same clock."""
    key: str
    """Key of the note."""

    @property
    def is_failure(self) -> bool:
        """Whether a process could not load, or lost its accelerator before it had made anything."""
        return self.kind != "begun"


@dataclass(frozen=True)
class Health:
    """The notes of one pool. Instances can be pickled and sent to workers."""

    store: Store
    pool: str
    """Name of the pool, unlike that of any other that fills the store."""

    def note(self, kind: Kind, *, began_ms: int, error: Exception | None = None) -> None:
        """Note what happens to this process, and why."""
        node, actor = here()
        name = [self.pool, node, actor, kind, str(began_ms), str(now_ms())]
        reason = one_line(error) if error else ""
        said = {"host": socket.gethostname(), "address": _address(), "reason": reason}
        self.store.write_bytes(self._folder + _BETWEEN.join(name), json.dumps(said).encode())

    def notes(self) -> list[Note]:
        """All notes of this pool."""
        # in one folder: on a disk one for each node would stay behind, empty
        found = (key for key in self.store.iterate(_FOLDER) if key.startswith(f"{self._folder}{self.pool}~"))
        return [_parse(key) for key in found]

    def tell(self, note: Note) -> str:
        """Where something was noted, and the error, in one line."""
        said: dict[str, str] = json.loads(self.store.read_bytes(note.key))
        return f"{said['host']} ({said['address']}, node {note.node}): {said['reason']}"

    def clear(self) -> None:
        """Remove the notes of this pool, and those of earlier drivers: nobody reads them."""
        for key in list(self.store.iterate(_FOLDER)):
            if key.startswith(f"{self._folder}{self.pool}~") or key < self._folder:
                self.store.delete(key)

    @property
    def _folder(self) -> str:
        return f"{_FOLDER}/{self.store.fence.epoch if self.store.fence else 0:08d}{_BETWEEN}"


def failures_by_node(notes: Iterable[Note]) -> dict[str, int]:
    """How often each node has failed; what fails there at the same time counts once.

    Eight actors that cannot load because storage is slow for a minute have failed once, not eight times.
    """
    counts: dict[str, int] = {}
    last: dict[str, int] = {}
    for note in sorted(notes, key=lambda note: note.noted_ms):
        if note.is_failure and note.began_ms >= last.get(note.node, 0):
            counts[note.node] = counts.get(note.node, 0) + 1
            last[note.node] = note.noted_ms
    return counts


def alive(pool: str, notes: Iterable[Note]) -> set[str]:
    """Actors of a pool that Ray has, also such as wait for a node, without those that are gone."""
    return {name for name in _listed() if name.startswith(f"{pool}-")} - gone(notes)


def gone(notes: Iterable[Note]) -> set[str]:
    """Actors that have noted that they start no more."""
    return {note.actor for note in notes if note.kind == "gone"}


def wait_for_end(pool: str) -> None:
    """Wait until Ray has none of a pool's actors any more, for at most `END_S`."""
    until = time.monotonic() + END_S
    while alive(pool, ()) and time.monotonic() < until:
        time.sleep(0.05)


def here() -> tuple[str, str]:
    """Node and actor of this process."""
    if not ray.is_initialized():
        return "local", "process"
    context = ray.get_runtime_context()
    return context.get_node_id(), context.get_actor_name() or "task"


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def _listed() -> set[str]:
    """Names of all actors that have one."""
    if not ray.is_initialized():  # asking would start a Ray, or join one that is not ours
        return set()
    return {str(actor["name"]) for actor in ray.util.list_named_actors(all_namespaces=True)}


def _address() -> str:
    return ray.util.get_node_ip_address() if ray.is_initialized() else "127.0.0.1"


def _parse(key: str) -> Note:
    _, _, node, actor, kind, began_ms, noted_ms = key.split(_BETWEEN)
    kinds: dict[str, Kind] = {"begun": "begun", "failed": "failed", "gone": "gone"}
    return Note(node, actor, kinds[kind], int(began_ms), int(noted_ms), key)
