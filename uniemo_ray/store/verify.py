"""Compare what a run has committed with what lies in its storage, and clear what cannot be trusted."""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uniemo_ray.seeds import id_hashes
from uniemo_ray.store.base import Store
from uniemo_ray.store.errors import DamagedError
from uniemo_ray.store.record import StepRecord
from uniemo_ray.store.run import STEPS, RunFolder
from uniemo_ray.store.seal import MANIFEST, SEAL_FOLDER, entry_key
from uniemo_ray.store.shards import ShardEntry, committed, read_shard_bytes, seal_manifest

logger = logging.getLogger(__name__)
ID_COLUMN = "image_id"
_READERS = 8
"""Shards that are read at a time."""

Kind = Literal["torn", "missing", "foreign", "duplicated"]


class Finding(NamedTuple):
    """Something that is not as it was committed."""

    kind: Kind
    """`torn`: other bytes than listed, or an entry, a seal or a step's record that cannot be read; `missing`:
    listed or promised by the step's record, but not there; `foreign`: there, but not listed; `duplicated`: an
    image id that another shard of the folder holds as well."""
    folder: str
    """Artefact folder, or that of a record; a key in the run's store."""
    name: str
    """Shard, relative to the folder and without ending; empty for those of which nothing is left. Of a seal
    or a record the file's name, with its ending."""
    detail: str


class Tally(NamedTuple):
    """What was looked at."""

    folders: int
    shards: int
    rows: int
    bytes: int


class Report(NamedTuple):
    """Result of `verify_run`."""

    tally: Tally
    findings: tuple[Finding, ...]


def verify_run(store: Store) -> Report:
    """Re-hash every committed shard of a run and look for files that nobody listed. Writes nothing.

    Memory: a few shards, and some 32 bytes for every image id of a folder.
    """
    tally = Tally(0, 0, 0, 0)
    records, findings = _records(store)
    promised = _promised(records)
    for folder in sorted({*shard_folders(store), *promised}):
        sub, unreadable = store.sub(folder), dict[str, str]()
        entries = committed(sub, unreadable=unreadable)
        findings += [Finding("torn", folder, _named(key), detail) for key, detail in unreadable.items()]
        torn = {_named(key) for key in unreadable if key.startswith(MANIFEST)}
        findings += _verify_folder(sub, folder, entries, torn)
        if (left := len(entries) + len(torn)) < promised.get(folder, 0):
            detail = f"{left} shards are listed, {promised[folder]} were when the step finished"
            findings.append(Finding("missing", folder, "", detail))
        tally = Tally(
            tally.folders + 1,
            tally.shards + len(entries),
            tally.rows + sum(entry.rows for entry in entries.values()),
            tally.bytes + sum(entry.bytes for entry in entries.values()),
        )
    return Report(tally, tuple(findings))


def shard_folders(store: Store, prefix: str = "") -> list[str]:
    """Folders of a run with a manifest of shards whose name starts with `prefix`."""
    marker = f"/{MANIFEST}/{prefix}"
    return sorted({key.partition(marker)[0] for key in store.iterate("artefacts") if marker in key})


def _records(store: Store) -> tuple[list[StepRecord], list[Finding]]:
    """The commit records of all steps, and those that cannot be read."""
    records, findings = [], []
    for key in store.list(STEPS):
        try:
            records.append(StepRecord.from_dict(store.read_json(key)))
        except (DamagedError, ValueError) as error:
            folder, _, name = key.rpartition("/")
            findings.append(Finding("torn", folder, name, str(error)))
    return records, findings


def _promised(records: Iterable[StepRecord]) -> dict[str, int]:
    """Artefact folders, and how many shards a step had committed there when it finished."""
    counts: dict[str, int] = {}
    for record in records:
        if record.shards:
            counts[record.artefacts] = max(record.shards, counts.get(record.artefacts, 0))
    return counts


def _named(key: str) -> str:
    """The shard that a manifest entry speaks of; for other files their key."""
    return key.removeprefix(f"{MANIFEST}/").removesuffix(".json")


def _verify_folder(
    store: Store, folder: str, entries: dict[str, ShardEntry], torn: Set[str]
) -> Iterator[Finding]:
    ids: dict[str, list[tuple[str, np.ndarray]]] = {}
    with ThreadPoolExecutor(_READERS) as pool:
        checked = pool.map(lambda entry: _verify_shard(store, folder, entry), entries.values())
        for name, found in zip(entries, checked, strict=True):
            if isinstance(found, Finding):
                yield found
            elif found is not None:
                ids.setdefault(_place(name), []).append((name, found))
    for shards in ids.values():
        yield from _duplicates(shards, folder)
    yield from _foreign(store, folder, {*entries, *torn})


def _verify_shard(store: Store, folder: str, entry: ShardEntry) -> Finding | np.ndarray | None:
    """What is wrong with a shard, or the hashes of its image ids if it has such."""
    try:
        data = read_shard_bytes(store, entry)
    except DamagedError as error:
        return Finding("torn" if store.exists(entry.key) else "missing", folder, entry.name, str(error))
    if ID_COLUMN not in entry.schema:
        return None
    column = pq.read_table(pa.BufferReader(data), columns=[ID_COLUMN])[ID_COLUMN]
    return id_hashes(column.to_pylist())


def _place(name: str) -> str:
    """The folder of a shard: ids are distinct within one, and come again beside it (images, scores)."""
    return name.rpartition("/")[0]


def _duplicates(shards: list[tuple[str, np.ndarray]], folder: str) -> Iterator[Finding]:
    """Ids that an earlier row has, at the shard where they come again."""
    hashes = np.concatenate([found for _, found in shards])
    owner = np.repeat(np.arange(len(shards)), [len(found) for _, found in shards])
    order = np.argsort(hashes, kind="stable")
    repeats = order[1:][hashes[order[1:]] == hashes[order[:-1]]]
    for number, count in zip(*np.unique(owner[repeats], return_counts=True), strict=True):
        detail = f"{count} image ids are in this folder twice"
        yield Finding("duplicated", folder, shards[number][0], detail)


def _foreign(store: Store, folder: str, listed: set[str]) -> Iterator[Finding]:
    places = {_place(name) for name in listed} - {""}
    for key in store.list():
        name = key.removesuffix(".parquet")
        if name != key and name not in listed and _place(name) in places:
            digest = hashlib.sha256(store.read_bytes(key)).hexdigest()
            yield Finding("foreign", folder, name, f"no manifest entry, sha256 {digest[:12]}")


def repair_run(run: RunFolder) -> tuple[Finding, ...]:
    """Remove what `verify_run` finds, with its manifest entry and the commit records of its step.

    Submitting the job again then makes exactly these shards anew, and skips all others: later steps stay
    finished, because a shard is a function of its plan and comes back with the same rows. The records go
    first and the entries last, so that after a crash the rest is found again.

    Raises:
        RunLockedError: a living driver works on the run; nothing was touched.
    """
    with run.locked():
        findings = [*_clear_records(run), *_seal_folders(run)]
        shards = verify_run(run.store).findings
        for folder in sorted({finding.folder for finding in shards}):
            step = folder.rpartition("/")[2].rpartition("-")[0]
            run.forget(step, folder)
            logger.info("%s is open again", step)
        for finding in shards:
            if finding.name:
                store = run.store.sub(finding.folder)
                run.lease.check()
                store.delete(f"{finding.name}.parquet")
                store.delete(entry_key(finding.name))
    return (*findings, *shards)


def _clear_records(run: RunFolder) -> list[Finding]:
    """Remove records that cannot be read: their steps run again and find their files."""
    _, findings = _records(run.store)
    for finding in findings:
        run.lease.check()
        run.store.delete(f"{finding.folder}/{finding.name}")
    return findings


def _seal_folders(run: RunFolder) -> Iterator[Finding]:
    """Seal all folders: what an older driver's actor, paused until now, lists later does not count."""
    for folder in shard_folders(run.store):
        store, unreadable = run.fenced_store.sub(folder), dict[str, str]()
        seal_manifest(store, unreadable=unreadable)
        for key, detail in unreadable.items():
            if key.startswith(SEAL_FOLDER):
                store.delete(key)
                yield Finding("torn", folder, key, detail)
