"""Parquet shards under stable names: each is there once and whole, and readers see only what is listed."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from uniemo_ray.store.base import Store, check_key, to_json
from uniemo_ray.store.errors import StoreError
from uniemo_ray.store.record import library_versions

logger = logging.getLogger(__name__)
_PLAN_KEY = b"uniemo_ray.plan_hash"
_READERS = 16


@dataclass(frozen=True)
class ShardEntry:
    """A manifest entry, `manifest/NAME.json`: the shard is committed."""

    name: str
    """Stable name without ending, such as `images-00042`."""
    rows: int
    bytes: int
    sha256: str
    schema: dict[str, str]
    """Column name -> pyarrow type."""
    plan_hash: str
    """What the shard was made for; a shard of another plan is never taken for it."""
    versions: dict[str, str]
    seconds: float
    """Time it took to make the rows."""

    @property
    def key(self) -> str:
        """Where the data lies in the store."""
        return f"{self.name}.parquet"


def commit_shard(
    store: Store,
    name: str,
    table: pa.Table,
    *,
    plan_hash: str,
    seconds: float = 0.0,
    versions: Mapping[str, str] | None = None,
) -> ShardEntry:
    """Commit a table under a stable name; of several attempts at one name the first to be listed counts.

    The data comes first and the manifest entry last, both created without replacing. So a crash in between
    leaves data that no reader sees, and the next attempt lists exactly those bytes.

    Raises:
        ValueError: the name is taken by a shard of another plan, rows or columns.
        StoreError: storage failed, as one clear line.
    """
    check_key(name)
    listed = find_shard(store, name)
    if listed is not None:
        return _same(listed, table, plan_hash=plan_hash, store=store)
    data = _to_parquet(table, plan_hash)
    if not store.put_if_absent(f"{name}.parquet", data):
        data = store.read_bytes(f"{name}.parquet")
        logger.info("%s was written before but not listed: it is listed now", name)
    entry = ShardEntry(
        name=name,
        rows=table.num_rows,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        schema=describe_schema(table.schema),
        plan_hash=plan_hash,
        versions=dict(library_versions() if versions is None else versions),
        seconds=round(seconds, 3),
    )
    _check_content(data, entry, store=store)
    if not store.put_if_absent(_manifest(name), to_json(asdict(entry))):
        return _same(_read(store, _manifest(name)), table, plan_hash=plan_hash, store=store)
    return entry


def list_shards(store: Store, prefix: str, entries: Sequence[ShardEntry]) -> None:
    """List shards that something else has written below a prefix: exactly these from now on.

    Raises:
        StoreError: storage failed, as one clear line.
    """
    names = {entry.name for entry in entries}
    for name in committed(store, prefix):
        if name not in names:
            store.delete(_manifest(name))
    for entry in entries:
        store.write_json(_manifest(entry.name), asdict(entry))


def find_shard(store: Store, name: str) -> ShardEntry | None:
    """The manifest entry of one shard, or None while it is not committed."""
    try:
        return _read(store, _manifest(name))
    except FileNotFoundError:
        return None


def committed(store: Store, prefix: str = "") -> dict[str, ShardEntry]:
    """All committed shards whose name starts with `prefix`, by name, sorted."""
    keys = [
        key
        for key in store.list("manifest")
        if key.startswith(f"manifest/{prefix}") and key.endswith(".json")
    ]
    with ThreadPoolExecutor(_READERS) as pool:
        entries = list(pool.map(lambda key: _read(store, key), keys))
    return {entry.name: entry for entry in entries}


def shard_paths(store: Store, prefix: str = "") -> list[str]:
    """Paths of all committed shards for the file system of `store.arrow()`, sorted by name."""
    _, root = store.arrow()
    return [f"{root}/{entry.key}" for entry in committed(store, prefix).values()]


def read_shards(store: Store, prefix: str = "", *, columns: Sequence[str] | None = None) -> pa.Table:
    """All committed rows as one table, in the order of names. For small tables such as plans and scores.

    Raises:
        FileNotFoundError: nothing is committed under the prefix.
        StoreError: a listed shard is missing or damaged.
    """
    entries = committed(store, prefix).values()
    if not entries:
        raise FileNotFoundError(f"no committed shards {prefix}* in {store.uri}")
    wanted = None if columns is None else list(columns)
    tables = [
        _table(read_shard_bytes(store, entry), wanted, name=f"{store.uri}/{entry.key}") for entry in entries
    ]
    return pa.concat_tables(tables)


def read_shard_bytes(store: Store, entry: ShardEntry) -> bytes:
    """A committed shard's bytes, checked against its entry.

    Raises:
        StoreError: the shard is missing, has another length or another sha256.
    """
    where = f"{store.uri}/{entry.key}"
    try:
        data = store.read_bytes(entry.key)
    except FileNotFoundError:
        raise StoreError(
            f"{where} is listed but missing: delete its manifest entry to make it again"
        ) from None
    advice = "delete it and its manifest entry to make it again"
    if len(data) != entry.bytes:
        raise StoreError(f"{where} has {len(data)} bytes instead of {entry.bytes}: {advice}")
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise StoreError(f"{where} has another sha256 than listed: {advice}")
    return data


def _to_parquet(table: pa.Table, plan_hash: str) -> bytes:
    marked = table.replace_schema_metadata({**(table.schema.metadata or {}), _PLAN_KEY: plan_hash.encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(marked, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def _table(data: bytes, columns: list[str] | None, *, name: str) -> pa.Table:
    try:
        table = pq.read_table(pa.BufferReader(data), columns=columns)
    except pa.ArrowInvalid as error:
        raise StoreError(f"{name} is no readable Parquet ({error}): delete it to make it again") from None
    return table.replace_schema_metadata(None)  # plan marks differ between shards that belong together


def _check_content(data: bytes, entry: ShardEntry, *, store: Store) -> None:
    # What lies under the name may come from an earlier attempt: it has to be what this one would list.
    where = f"{store.uri}/{entry.key}"
    try:
        found = pq.ParquetFile(pa.BufferReader(data))
    except pa.ArrowInvalid as error:
        raise StoreError(f"{where} is no readable Parquet ({error}): delete it to make it again") from None
    schema = describe_schema(found.schema_arrow)
    plan_hash = (found.schema_arrow.metadata or {}).get(_PLAN_KEY, b"").decode()
    if (found.metadata.num_rows, schema, plan_hash) != (entry.rows, entry.schema, entry.plan_hash):
        raise ValueError(
            f"{where} exists with other rows, columns or plan: delete it, or choose another folder"
        )


def _same(entry: ShardEntry, table: pa.Table, *, plan_hash: str, store: Store) -> ShardEntry:
    schema = describe_schema(table.schema)
    if (entry.rows, entry.schema, entry.plan_hash) != (table.num_rows, schema, plan_hash):
        raise ValueError(
            f"{store.uri}/{entry.key} is committed with {entry.rows} rows of plan {entry.plan_hash[:12]}, "
            f"got {table.num_rows} rows of plan {plan_hash[:12]}: choose another name or folder"
        )
    return entry


def describe_schema(schema: pa.Schema) -> dict[str, str]:
    """Column name to pyarrow type, as a manifest entry has it."""
    # Parquet calls the items of a list `element`, whatever Arrow called them in memory.
    return {column.name: str(column.type).replace("<item: ", "<element: ") for column in schema}


def _manifest(name: str) -> str:
    return f"manifest/{name}.json"


def _read(store: Store, key: str) -> ShardEntry:
    values: dict[str, Any] = store.read_json(key)
    try:
        return ShardEntry(**values)
    except TypeError as error:
        raise StoreError(
            f"{store.uri}/{key} is no manifest entry ({error}): delete it to commit again"
        ) from None
