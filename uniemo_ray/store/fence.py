"""Which driver a store is written for: its number goes into what is committed, and a later one ends it."""

from collections.abc import Iterator
from dataclasses import dataclass

from uniemo_ray.store.base import Store
from uniemo_ray.store.errors import SupersededError

LOCK_FOLDER = "lock"


@dataclass(frozen=True)
class LeaseFence:
    """A held lease, as far as writers on other machines need it."""

    root: Store
    """The run's own store, where the leases lie."""
    epoch: int
    """Number of the lease; 0 when none is held."""

    def check(self) -> None:
        """Ask before anything is committed whether the lease still counts.

        Raises:
            SupersededError: it is not held, or another driver has taken it over.
        """
        newest = newest_epoch(self.root)
        if self.epoch == 0 or newest != self.epoch:
            raise SupersededError(
                f"another driver has taken over {self.root.uri} (lease {newest}, ours was {self.epoch}): "
                "this one stops and commits nothing more"
            )


def newest_epoch(root: Store) -> int:
    """The highest number in `lock/`; 0 when nobody ever drove the run."""
    return max((epoch for epoch, _ in leases(root)), default=0)


def leases(root: Store) -> Iterator[tuple[int, str]]:
    """Numbers and keys of the leases that are there."""
    for key in root.iterate(LOCK_FOLDER):
        stem = key.removeprefix(f"{LOCK_FOLDER}/").removesuffix(".json")
        if stem.isdigit():
            yield int(stem), key


def lease_key(epoch: int) -> str:
    """Where a lease lies."""
    return f"{LOCK_FOLDER}/{epoch:08d}.json"
