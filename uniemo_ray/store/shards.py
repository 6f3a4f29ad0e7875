"""Parquet shards under stable names: each is there once and whole, and readers see only what is listed."""

import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from uniemo_ray.store import faults
from uniemo_ray.store.base import Store, check_key, to_json
from uniemo_ray.store.entry import ShardEntry
from uniemo_ray.store.errors import REPAIR, REPAIR_MISSING, DamagedError, StoreError
from uniemo_ray.store.record import library_versions
from uniemo_ray.store.seal import (
    MANIFEST,
    NO_SEAL,
    Seal,
    entry_key,
    newest_seal,
    read_seal,
    sealed_epoch,
    write_seal,
)
from uniemo_ray.store.shard_format import RESULTS, ShardFormat

__all__ = [
    "ShardEntry",
    "check_bytes",
    "commit_shard",
    "committed",
    "describe_schema",
    "drop_shards",
    "find_shard",
    "iterate_entries",
    "iterate_shards",
    "read_shard_bytes",
    "read_shards",
    "seal_manifest",
    "shard_paths",
]

logger = logging.getLogger(__name__)
_READERS = 32
_PART = re.compile(r"(^|/)part-\d+\.parquet$")
_MANY_UNSEALED = 256
"""Entries that are worth a new seal: reading them one by one takes S3 a second or two."""


def commit_shard(
    store: Store,
    name: str,
    table: pa.Table,
    *,
    plan_hash: str,
    seconds: float = 0.0,
    versions: Mapping[str, str] | None = None,
    attempt: int = 1,
    form: ShardFormat = RESULTS,
) -> ShardEntry:
    """Commit a table under a stable name; of several attempts at one name the first to be listed counts.

    The data comes first and the manifest entry last, both created without replacing. So a crash in between
    leaves data that no reader sees, and the next attempt lists exactly those bytes, unless they are damaged
    or of another plan (a driver that was to make more or fewer images has left them): then the holder of the
    lease replaces them. A fenced store lists nothing once its lease is another driver's.

    Raises:
        ValueError: the name is taken by a shard of another plan, rows or columns; unlisted, and without a
            lease that lets it be replaced, or listed.
        SupersededError: the driver that the store belongs to is superseded.
        StoreError: storage failed, as one clear line.
    """
    check_key(name)
    listed = find_shard(store, name)
    if listed is not None:
        return _same(listed, table, plan_hash=plan_hash, store=store, form=form)
    data = form.encode(table, plan_hash)
    faults.reach("made")
    if not store.put_if_absent(f"{name}.parquet", data):
        data, table = _adopt(store, name, data, table, plan_hash=plan_hash, form=form)
    faults.reach("put")
    entry = ShardEntry(
        name=name,
        rows=table.num_rows,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        schema=describe_schema(table.schema),
        plan_hash=plan_hash,
        versions=dict(_versions() if versions is None else versions),
        seconds=round(seconds, 3),
        attempt=attempt,
        epoch=store.fence.epoch if store.fence else 0,
        failed=form.failures(table),
    )
    found = _list(store, entry)
    faults.reach("listed")
    return entry if found is None else _same(found, table, plan_hash=plan_hash, store=store, form=form)


def _list(store: Store, entry: ShardEntry) -> ShardEntry | None:
    """List a shard, or give the entry that another attempt has listed first."""
    if store.fence is not None:
        store.fence.check()
    elif epoch := sealed_epoch(store):
        raise StoreError(
            f"{store.uri} is written under leases (the last was {epoch}): commit through its run"
        )
    faults.reach("checked")
    key = entry_key(entry.name)
    if store.put_if_absent(key, to_json(asdict(entry))):
        return None
    found = find_shard(store, entry.name)
    if found is None:
        logger.warning("%s was listed by a superseded driver: that does not count", entry.name)
        store.check_fence()
        store.write_json(key, asdict(entry))
    return found


def drop_shards(store: Store, folder: str, *, keep: Mapping[str, str]) -> list[str]:
    """Delete a folder's shards that are no part of a plan, listed or not; returns their names, sorted.

    For the driver, of a manifest that it has sealed. The entry goes last: after a crash in between, the shard
    is listed but missing, and the next call drops it again.

    Args:
        store: the store of the shards.
        folder: `samples`, for example; other files below it stay.
        keep: name to plan hash of the shards that are wanted. A listed shard with another hash goes.

    Raises:
        SupersededError: this driver is superseded.
        StoreError: storage failed, as one clear line.
    """
    listed = committed(store, f"{folder}/")
    found = {key.removesuffix(".parquet") for key in store.iterate(folder) if _PART.search(key)}
    stale = {name for name, entry in listed.items() if keep.get(name) != entry.plan_hash}
    dropped = sorted(stale | (found - keep.keys()))
    for name in dropped:
        store.check_fence()
        logger.info("removing %s: not part of what is made now", name)
        store.delete(f"{name}.parquet")
        store.delete(entry_key(name))
    return dropped


def find_shard(store: Store, name: str) -> ShardEntry | None:
    """The manifest entry of one shard, or None while it is not committed."""
    try:
        entry = _read(store, entry_key(name))
    except FileNotFoundError:
        return None
    if store.fence is not None and entry.epoch == store.fence.epoch:
        return entry
    return entry if read_seal(store).accepts(entry) else None


def committed(
    store: Store, prefix: str = "", *, unreadable: dict[str, str] | None = None
) -> dict[str, ShardEntry]:
    """All committed shards whose name starts with `prefix`, by name, sorted.

    Args:
        store: the folder.
        prefix: of the names.
        unreadable: gets the keys of damaged entries and of a damaged seal, which then counts as none, and
            what is wrong with each; by default that is an error.

    Raises:
        DamagedError: an entry or the seal cannot be read.
    """
    return {entry.name: entry for _, entry in _tagged(store, prefix, _seal(store, unreadable), unreadable)}


def seal_manifest(store: Store, *, unreadable: dict[str, str] | None = None) -> dict[str, ShardEntry]:
    """All committed shards by name, of a manifest that is closed to earlier drivers from now on.

    Also gathers the entries in one file when many are in none. For the driver, before and after its actors
    work in a folder.

    Args:
        store: the folder.
        unreadable: as for `committed`.

    Raises:
        SupersededError: this driver is superseded.
        DamagedError: an entry or the seal cannot be read.
    """
    seal = _seal(store, unreadable)
    store.check_fence()
    entries = _tagged(store, "", seal, unreadable)
    supersedes_another = store.fence is not None and max(seal.epoch, 1) < store.fence.epoch
    if supersedes_another or len(entries) - len(seal.entries) >= _MANY_UNSEALED:
        write_seal(store, entries)
        faults.reach("sealed")
    return {entry.name: entry for _, entry in entries}


def _seal(store: Store, unreadable: dict[str, str] | None) -> Seal:
    try:
        return read_seal(store)
    except DamagedError as error:
        key = newest_seal(store)
        if unreadable is None or key is None:
            raise
        unreadable[key] = str(error)
        return NO_SEAL


def _tagged(
    store: Store, prefix: str, seal: Seal, unreadable: dict[str, str] | None = None
) -> list[tuple[str, ShardEntry]]:
    """Entries that count with their files' tags, sorted by name; only those that no seal holds are read."""
    folder = f"{MANIFEST}/{prefix}".rpartition("/")[0]
    found: list[tuple[str, ShardEntry]] = []
    unknown: list[tuple[str, str]] = []
    for key, tag in store.iterate_tagged(folder):
        if key.startswith(f"{MANIFEST}/{prefix}") and key.endswith(".json"):
            known = seal.entries.get(key)
            if known is not None and known[0] == tag:
                found.append(known)
            else:
                unknown.append((key, tag))

    def read(key: str) -> ShardEntry | None:
        try:
            return _read(store, key)
        except DamagedError as error:
            if unreadable is None:
                raise
            unreadable[key] = str(error)
            return None

    with ThreadPoolExecutor(_READERS) as pool:
        entries = list(pool.map(read, (key for key, _ in unknown)))
    for (_, tag), entry in zip(unknown, entries, strict=True):
        if entry is not None and seal.accepts(entry):
            found.append((tag, entry))
    return sorted(found, key=lambda item: item[1].name)


@cache
def _versions() -> dict[str, str]:
    return library_versions()  # some ten files to look up, the same for every shard


def shard_paths(store: Store, prefix: str = "") -> list[str]:
    """Paths of all committed shards for the file system of `store.arrow()`, sorted by name."""
    _, root = store.arrow()
    return [f"{root}/{entry.key}" for entry in committed(store, prefix).values()]


def read_shards(store: Store, prefix: str = "", *, columns: Sequence[str] | None = None) -> pa.Table:
    """All committed rows as one table, in the order of names. For small tables such as plans and scores.

    Raises:
        FileNotFoundError: nothing is committed under the prefix.
        DamagedError: a listed shard is missing or not as it was committed.
    """
    return pa.concat_tables(iterate_shards(store, prefix, columns=columns))


def listed(store: Store, prefix: str) -> list[ShardEntry]:
    """Committed shards whose name starts with `prefix`, of which there have to be some.

    Raises:
        FileNotFoundError: nothing is committed under the prefix.
    """
    entries = list(committed(store, prefix).values())
    if not entries:
        raise FileNotFoundError(f"no committed shards {prefix}* in {store.uri}")
    return entries


def entries_of(store: Store, folder: str) -> list[ShardEntry]:
    """Committed shards of a folder, by name.

    Raises:
        FileNotFoundError: there are none.
    """
    entries = list(committed(store, f"{folder}/").values())
    if not entries:
        raise FileNotFoundError(f"no committed shards below {store.uri}/{folder}")
    return entries


def iterate_shards(
    store: Store, prefix: str = "", *, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """All committed rows, in the order of names, one shard in memory at a time.

    Raises:
        FileNotFoundError: nothing is committed under the prefix.
        DamagedError: a listed shard is missing or not as it was committed.
    """
    yield from iterate_entries(store, listed(store, prefix), columns=columns)


def iterate_entries(
    store: Store, entries: Iterable[ShardEntry], *, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """The rows of these shards, one shard in memory at a time.

    Raises:
        DamagedError: a shard is missing or not as it was committed.
    """
    wanted = None if columns is None else list(columns)
    for entry in entries:
        yield _table(read_shard_bytes(store, entry), wanted, name=f"{store.uri}/{entry.key}")


def read_shard_bytes(store: Store, entry: ShardEntry) -> bytes:
    """A committed shard's bytes, checked against its entry.

    Raises:
        DamagedError: the shard is missing, has another length or another sha256.
    """
    where = f"{store.uri}/{entry.key}"
    try:
        data = store.read_bytes(entry.key)
    except FileNotFoundError:
        raise DamagedError(f"{where} is listed but missing: {REPAIR_MISSING}") from None
    check_bytes(data, where, length=entry.bytes, sha256=entry.sha256)
    return data


def check_bytes(data: bytes, where: str, *, length: int, sha256: str) -> None:
    """Compare a shard's bytes with what its manifest entry says.

    Raises:
        DamagedError: they are others.
    """
    if len(data) != length:
        raise DamagedError(f"{where} has {len(data)} bytes instead of {length}: {REPAIR}")
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DamagedError(f"{where} has another sha256 than listed: {REPAIR}")


def _table(data: bytes, columns: list[str] | None, *, name: str) -> pa.Table:
    try:
        table = pq.read_table(pa.BufferReader(data), columns=columns)
    except pa.ArrowInvalid as error:
        raise DamagedError(f"{name} is no readable Parquet ({error}): {REPAIR}") from None
    return table.replace_schema_metadata(None)  # plan marks differ between shards that belong together


def _adopt(
    store: Store, name: str, data: bytes, table: pa.Table, *, plan_hash: str, form: ShardFormat
) -> tuple[bytes, pa.Table]:
    """Bytes and rows that lie under a name which nobody has listed, or ours in the place of unfit ones."""
    key = f"{name}.parquet"
    where, stored = f"{store.uri}/{key}", store.read_bytes(key)
    try:
        # What was written before may have been damaged since: nothing but its own checksums tells.
        found, found_plan = form.decode(stored)
    except (ValueError, OSError) as error:
        problem = f"no readable Parquet ({error})"
    else:
        content = _input_rows(found, form), describe_schema(found.schema), found_plan
        if content == (_input_rows(table, form), describe_schema(table.schema), plan_hash):
            logger.info("%s was written before but not listed: it is listed now", name)
            return stored, found
        problem = "of other rows, columns or plan"
    if store.fence is None:
        raise ValueError(f"{where} exists and is {problem}: delete it, or choose another folder")
    store.fence.check()
    logger.warning("%s was written before but not listed, and is %s: it is replaced", name, problem)
    if store.replace(key, data, expected=stored):
        return data, table
    # another attempt was faster
    return _adopt(store, name, data, table, plan_hash=plan_hash, form=form)


def _input_rows(table: pa.Table, form: ShardFormat) -> int:
    return form.input_rows(table.num_rows, form.failures(table))


def _same(
    entry: ShardEntry, table: pa.Table, *, plan_hash: str, store: Store, form: ShardFormat
) -> ShardEntry:
    listed = form.input_rows(entry.rows, entry.failed), entry.schema, entry.plan_hash
    if listed != (_input_rows(table, form), describe_schema(table.schema), plan_hash):
        raise ValueError(
            f"{store.uri}/{entry.key} is committed with {entry.rows} rows of plan {entry.plan_hash[:12]}, "
            f"got {table.num_rows} rows of plan {plan_hash[:12]}: choose another name or folder"
        )
    return entry


def describe_schema(schema: pa.Schema) -> dict[str, str]:
    """Column name to pyarrow type, as a manifest entry has it."""
    # Parquet calls the items of a list `element`, whatever Arrow called them in memory.
    return {column.name: str(column.type).replace("<item: ", "<element: ") for column in schema}


def _read(store: Store, key: str) -> ShardEntry:
    values: dict[str, Any] = store.read_json(key)
    try:
        return ShardEntry(**values)
    except TypeError as error:
        raise DamagedError(
            f"{store.uri}/{key} is no manifest entry of this release ({error}): {REPAIR}"
        ) from None
