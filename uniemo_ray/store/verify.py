"""Compare what a run has committed with what lies in its storage, and clear what cannot be trusted."""

import hashlib
import logging
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uniemo_ray.seeds import id_hashes
from uniemo_ray.store.base import Store
from uniemo_ray.store.errors import StoreError
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.shards import ShardEntry, committed, read_shard_bytes

logger = logging.getLogger(__name__)
MANIFEST = "manifest"
ID_COLUMN = "image_id"

Kind = Literal["torn", "missing", "foreign", "duplicated"]


class Finding(NamedTuple):
    """Something that is not as it was committed."""

    kind: Kind
    """`torn`: other bytes than listed; `missing`: listed, but not there; `foreign`: there, but not listed;
    `duplicated`: an image id that another shard of the folder holds as well."""
    folder: str
    """Artefact folder, a key in the run's store."""
    name: str
    """Shard, relative to the folder and without ending."""
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

    Memory: one shard, and 8 bytes for every image id of a folder.
    """
    tally = Tally(0, 0, 0, 0)
    findings: list[Finding] = []
    for folder in shard_folders(store):
        sub = store.sub(folder)
        entries = committed(sub)
        findings += _verify_folder(sub, folder, entries)
        tally = Tally(
            tally.folders + 1,
            tally.shards + len(entries),
            tally.rows + sum(entry.rows for entry in entries.values()),
            tally.bytes + sum(entry.bytes for entry in entries.values()),
        )
    return Report(tally, tuple(findings))


def shard_folders(store: Store) -> list[str]:
    """Folders of a run that hold a shard manifest."""
    found = {
        key.partition(f"/{MANIFEST}/")[0] for key in store.iterate("artefacts") if f"/{MANIFEST}/" in key
    }
    return sorted(found)


def _verify_folder(store: Store, folder: str, entries: dict[str, ShardEntry]) -> Iterator[Finding]:
    ids: dict[str, list[tuple[str, np.ndarray]]] = {}
    for name, entry in entries.items():
        try:
            data = read_shard_bytes(store, entry)
        except StoreError as error:
            kind: Kind = "torn" if store.exists(entry.key) else "missing"
            yield Finding(kind, folder, name, str(error))
            continue
        if ID_COLUMN in entry.schema:
            column = pq.read_table(pa.BufferReader(data), columns=[ID_COLUMN])[ID_COLUMN]
            ids.setdefault(_place(name), []).append((name, id_hashes(column.to_pylist())))
    for shards in ids.values():
        yield from _duplicates(shards, folder)
    yield from _foreign(store, folder, entries)


def _place(name: str) -> str:
    """The folder of a shard: ids are distinct within one, and come again beside it (images, scores)."""
    return name.rpartition("/")[0]


def _duplicates(shards: list[tuple[str, np.ndarray]], folder: str) -> Iterator[Finding]:
    seen = np.empty(0, dtype=np.uint64)
    for name, hashes in shards:
        repeated = int(np.isin(hashes, seen).sum()) + len(hashes) - len(np.unique(hashes))
        if repeated:
            yield Finding("duplicated", folder, name, f"{repeated} image ids are in this folder twice")
        seen = np.union1d(seen, hashes)


def _foreign(store: Store, folder: str, entries: dict[str, ShardEntry]) -> Iterator[Finding]:
    listed, places = {entry.key for entry in entries.values()}, {_place(name) for name in entries}
    for key in store.list():
        name = key.removesuffix(".parquet")
        if name != key and key not in listed and _place(name) in places - {""}:
            digest = hashlib.sha256(store.read_bytes(key)).hexdigest()
            yield Finding("foreign", folder, name, f"no manifest entry, sha256 {digest[:12]}")


def repair_run(run: RunFolder) -> tuple[Finding, ...]:
    """Remove what `verify_run` finds, with its manifest entry and the commit records of its step.

    Submitting the job again then makes exactly these shards anew, and skips all others: later steps stay
    finished, because a shard is a function of its plan and comes back with the same rows.

    Raises:
        RunLockedError: a living driver works on the run; nothing was touched.
    """
    with run.locked():
        findings = verify_run(run.store).findings
        for finding in findings:
            store = run.store.sub(finding.folder)
            # The entry first: a crash in between leaves a file that nobody lists, which is safe.
            store.delete(f"{MANIFEST}/{finding.name}.json")
            store.delete(f"{finding.name}.parquet")
        for folder in {finding.folder for finding in findings if finding.kind != "foreign"}:
            _reopen_step(run, folder)
    return findings


def _reopen_step(run: RunFolder, folder: str) -> None:
    """Forget that the step of an artefact folder is finished; its good shards stay."""
    name = folder.rpartition("/")[2]
    step = name.rpartition("-")[0]
    record = run.record(step)
    run.store.delete(f"steps/history/{name}.json")
    if record is not None and record.artefacts == folder:
        run.store.delete(f"steps/{step}.json")
    logger.info("%s is open again", step)
