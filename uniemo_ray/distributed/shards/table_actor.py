"""What actors of a pool are: they load once, then turn shards into shards."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import pyarrow as pa

from uniemo_ray.store.fingerprint import fingerprint
from uniemo_ray.store.shard_format import ShardFormat


class Beside(NamedTuple):
    """A table that an actor makes on the way, for a shard of its own."""

    folder: str
    table: pa.Table
    plan: str
    """What it is made for, beside what the shard itself is made for; see `plan_beside`."""


class Made(NamedTuple):
    """What an actor makes of a shard, and what else."""

    table: pa.Table
    beside: tuple[Beside, ...] = ()


class TableActor(Protocol):
    """Loads in `__init__`, then turns tables into tables, each row for itself."""

    def __call__(self, table: pa.Table) -> pa.Table:
        """Rows in, rows out."""
        ...


@runtime_checkable
class StagedActor(Protocol):
    """An actor that uses the device first and CPUs afterwards, while the next shard has the device."""

    def begin(self, table: pa.Table) -> Callable[[], pa.Table | Made]:
        """Rows in; what comes back gives the rows out, and no longer needs the device."""
        ...


@runtime_checkable
class RejectingActor(Protocol):
    """An actor that knows how a row without a result looks."""

    def reject(self, table: pa.Table, reason: str) -> pa.Table:
        """Rows in, rows without a result and with this reason out."""
        ...


class ActorFactory(Protocol):
    """Makes an actor in the process that runs it."""

    def __call__(self, *, device: str) -> TableActor:
        """Load what it needs onto a torch device."""
        ...


@runtime_checkable
class FormattedActor(Protocol):
    """An actor whose shards are files of their own form, such as the canonical samples."""

    @property
    def form(self) -> ShardFormat:
        """The form of its shards."""
        ...


@runtime_checkable
class AdvisingActor(Protocol):
    """An actor that knows which setting makes it need less memory."""

    @property
    def memory_advice(self) -> str:
        """What to do when the accelerator's memory is too small."""
        ...


def plan_beside(shard: str, other: str) -> str:
    """Plan hash of a table beside a shard: of the shard's own and of what else decides the table."""
    return fingerprint([shard, other])
