"""Notes of what was begun and not finished: they tell a shard, or one row of it, that kills its process.

An exception can be caught; a crash or a machine that runs out of memory leaves only that it had begun.
Each driver counts for itself: whoever kills a driver kills its actors too, and no row is to blame for that.
"""

from uniemo_ray.store.base import Store

_FOLDER = "attempts"
_BELOW, _EPOCH = "~", "@"


def begin(store: Store, name: str) -> int:
    """Note that something begins; returns how often it had begun under this driver without an end."""
    before = count_attempts(store, name)
    store.write_bytes(f"{_mark(store, name)}{before + 1:04d}", b"")
    return before


def end(store: Store, name: str) -> None:
    """Remove the notes of a thing: whatever came of it, no process died of it."""
    starts = tuple(f"{_FOLDER}/{_flat(name)}{mark}" for mark in (_BELOW, _EPOCH))
    for key in list(store.iterate(_FOLDER)):  # as many as there are shards in work
        if key.startswith(starts):
            store.delete(key)


def count_attempts(store: Store, name: str) -> int:
    """How often something had begun without an end; what lies below its name does not count."""
    return sum(key.startswith(_mark(store, name)) for key in store.iterate(_FOLDER))


def _mark(store: Store, name: str) -> str:
    """How notes of the store's driver begin."""
    return f"{_FOLDER}/{_flat(name)}{_EPOCH}{store.fence.epoch if store.fence else 0:08d}-"


def _flat(name: str) -> str:
    # in one folder: on a disk one for each shard would stay behind, empty
    return name.replace("/", _BELOW)
