"""A manifest's entries in one file: what a later driver accepts of earlier ones, and a fast start.

A seal names the entries that counted when the driver of an epoch began. Entries of earlier epochs that are
not in the newest seal are those of drivers that did not know yet that they were superseded: no reader takes
them. An entry that is in it need not be read: its tag says that its file is still the one that was read then.
"""

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from uniemo_ray.store.base import Store
from uniemo_ray.store.entry import ShardEntry
from uniemo_ray.store.errors import REPAIR, DamagedError

SEAL_FOLDER, MANIFEST = "sealed", "manifest"
_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("tag", pa.string()),
        ("name", pa.string()),
        ("rows", pa.int64()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("plan_hash", pa.string()),
        ("seconds", pa.float64()),
        ("attempt", pa.int64()),
        ("epoch", pa.int64()),
        ("schema", pa.string()),  # schema, versions and failed are JSON: one text for thousands of shards
        ("versions", pa.string()),
        ("failed", pa.string()),
    ]
)
_KEPT_SEALS = 3
"""A reader may still be about to open the one that was the newest a moment ago."""
_JSON = ("schema", "versions", "failed")


@dataclass(frozen=True)
class Seal:
    """The newest seal of a folder."""

    epoch: int
    """Entries of this and later epochs count whether or not they are in it."""
    entries: Mapping[str, tuple[str, ShardEntry]]
    """Key of the entry's file -> its tag then, and what it held."""

    def accepts(self, entry: ShardEntry) -> bool:
        """Whether an entry that was read counts."""
        known = self.entries.get(entry_key(entry.name))
        return entry.epoch >= self.epoch or (known is not None and known[1] == entry)


NO_SEAL = Seal(0, {})


def entry_key(name: str) -> str:
    """Where a shard's manifest entry lies."""
    return f"{MANIFEST}/{name}.json"


def read_seal(store: Store) -> Seal:
    """The newest seal; `NO_SEAL` where nobody has made one.

    Raises:
        DamagedError: it cannot be read.
    """
    key = newest_seal(store)
    if key is None:
        return NO_SEAL
    data = pa.BufferReader(store.read_bytes(key))
    try:
        table = pq.read_table(data, schema=_SCHEMA, page_checksum_verification=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise DamagedError(f"{store.uri}/{key} is no readable seal ({error}): {REPAIR}") from None
    known: dict[str, dict[str, Any]] = {}
    entries = {}
    for row in table.to_pylist():
        # shards share their columns and versions: so do their entries in memory
        for text in {row[name] for name in _JSON} - known.keys():
            known[text] = json.loads(text)
        plain = {name: known[row[name]] for name in _JSON}
        tag_key, tag = row.pop("key"), row.pop("tag")
        entries[tag_key] = (tag, ShardEntry(**{**row, **plain}))
    return Seal(_epoch(key), entries)


def newest_seal(store: Store) -> str | None:
    """Key of the newest seal; None where nobody has made one."""
    return max(store.iterate(SEAL_FOLDER), default=None)


def sealed_epoch(store: Store) -> int:
    """The epoch of the newest seal, by its name alone; 0 where nobody has made one."""
    return max((_epoch(key) for key in store.iterate(SEAL_FOLDER)), default=0)


def highest_epoch(root: Store) -> int:
    """The highest epoch that a seal of a run's steps names; 0 for none. Lists all artefacts."""
    marker = f"/{SEAL_FOLDER}/"
    return max((_epoch(key) for key in root.iterate("artefacts") if marker in key), default=0)


def write_seal(store: Store, entries: Iterable[tuple[str, ShardEntry]]) -> None:
    """Seal tagged entries under the store's lease; another seal of the same lease is replaced."""
    columns: dict[str, list[Any]] = {name: [] for name in _SCHEMA.names}
    for tag, entry in entries:
        plain = {field.name: getattr(entry, field.name) for field in fields(entry)}
        plain |= {name: json.dumps(plain[name], sort_keys=False) for name in _JSON}
        for name, value in ({"key": entry_key(entry.name), "tag": tag} | plain).items():
            columns[name].append(value)
    sink = io.BytesIO()
    table = pa.table(columns, schema=_SCHEMA)
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    epoch = store.fence.epoch if store.fence else 0
    store.write_bytes(f"{SEAL_FOLDER}/{epoch:08d}.parquet", sink.getvalue())
    for key in store.list(SEAL_FOLDER)[:-_KEPT_SEALS]:
        store.delete(key)


def _epoch(key: str) -> int:
    stem = key.rpartition("/")[2].removesuffix(".parquet")
    return int(stem) if stem.isdigit() else 0
