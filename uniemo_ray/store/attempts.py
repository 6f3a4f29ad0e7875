"""What was begun and not finished: how a shard, or one row of it, that kills its process is told.

An exception can be caught; a crash or a machine that runs out of memory leaves only that it had begun.
"""

from uniemo_ray.store.base import Store

_FOLDER = "attempts"


def begin(store: Store, name: str) -> int:
    """Note that something begins; returns how often it had begun before without an end."""
    before = count_attempts(store, name)
    store.write_bytes(f"{_FOLDER}/{name}/{before + 1:04d}", b"")
    return before


def end(store: Store, name: str) -> None:
    """Whatever came of it, no process died of it."""
    for key in list(store.iterate(f"{_FOLDER}/{name}")):
        store.delete(key)


def count_attempts(store: Store, name: str) -> int:
    """How often something had begun without an end; what lies below its name does not count."""
    base = f"{_FOLDER}/{name}/"
    return sum("/" not in key.removeprefix(base) for key in store.iterate(f"{_FOLDER}/{name}"))
