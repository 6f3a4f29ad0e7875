"""What the driver and the actors of a pool tell each other about a shard: numbers and text only."""

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from ray.exceptions import RayError

from uniemo_ray.store.entry import ShardEntry

_RAISED = re.compile(
    r"^(?P<kind>[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt)): (?P<text>.*)$", re.MULTILINE
)
"""The line of a traceback that says what was raised; the first one is where it began."""


class ShardTask(NamedTuple):
    """One shard to make."""

    key: str
    """Key of the input file."""
    bytes: int
    """Size of the input file, by its manifest entry."""
    sha256: str
    """Digest of the input file, by its manifest entry."""
    name: str
    """Name of the resulting shard."""
    plan: str
    """Plan hash of the resulting shard."""
    attempt: int
    """Number of the driver's attempt, counted from 1."""
    is_last: bool
    """Whether no attempt follows: then rows that raise are rejected one by one."""


class ShardReport(NamedTuple):
    """What became of a shard."""

    shard: str
    rows: int = 0
    failed: int = 0
    groups: str = "{}"
    """JSON: rows with a result by emotion."""
    kind: str = ""
    """Name of the exception's class; empty when the shard is committed."""
    reason: str = ""
    """First line of the exception's message."""

    @staticmethod
    def of_error(error: Exception, shard: str) -> "ShardReport":
        """The report of a shard that is not committed.

        Ray's errors hold the whole traceback of the process that raised, below a line that says nothing.
        """
        kind, text = type(error).__name__, str(error)
        raised = _RAISED.search(text) if isinstance(error, RayError) else None
        if raised:
            kind, text = raised["kind"].rpartition(".")[2], raised["text"]
        return ShardReport(shard, kind=kind, reason=(text.splitlines() or ["no message"])[0])

    @staticmethod
    def of_entry(entry: ShardEntry, groups: Mapping[str, int]) -> "ShardReport":
        """The report of a committed shard."""
        return ShardReport(entry.name, entry.rows, sum(entry.failed.values()), json.dumps(groups))
