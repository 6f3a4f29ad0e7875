"""The run folder: what it holds, who may write to it, and what is finished in it."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel

from uniemo_ray import __version__
from uniemo_ray.store import faults
from uniemo_ray.store.base import Store, to_json
from uniemo_ray.store.errors import REPAIR, DamagedError, StoreError
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.fingerprint import canonical
from uniemo_ray.store.lease import Lease
from uniemo_ray.store.record import StepRecord, now

logger = logging.getLogger(__name__)
VERSION = 2
"""Format of a run folder; a change that older code would misread raises it."""
_WHY_OLDER_ENDS = {
    1: "its steps did not declare all the settings that they read, so nothing in it can be told to be current"
}
"""Why a format is not read any more."""
_MARKER, _CONFIG, _KIND = "run.json", "config.json", "uniemo_ray run"
STEPS = "steps"
_HISTORY = f"{STEPS}/history"
_STALE_AFTER_S = 3600.0


def holds_run(uri: str) -> bool:
    """Whether a run was begun at an address. Writes nothing."""
    return open_store(uri).exists(_MARKER)


class RunFolder:
    """A run's folder, local or on S3.

    run.json                              format and version
    config.json                           resolved config of the newest submission
    steps/NAME.json                       commit record of each finished step, as of the newest submission
    steps/history/NAME-FINGERPRINT.json   the same for every fingerprint that ever finished
    artefacts/NAME-FINGERPRINT/           a step's files
    lock/NUMBER.json                      the lease of the driver
    logs/NUMBER-PART.log                  what the driver of this lease and its workers said
    """

    def __init__(self, store: Store, config: BaseModel | Mapping[str, Any], *, ttl_s: float = 60.0) -> None:
        self.store = store
        self.config: dict[str, Any] = canonical(config, "config")
        self.lease = Lease(store, ttl_s=ttl_s)

    @classmethod
    def open(cls, uri: str, config: BaseModel | Mapping[str, Any], *, ttl_s: float = 60.0) -> "RunFolder":
        """Open a run folder, or mark an empty or missing one as a run folder.

        Args:
            uri: Local path or `s3://bucket/prefix`.
            config: The resolved config; written by `locked`.
            ttl_s: How long a driver on another machine may be silent before it counts as dead.

        Raises:
            ValueError: the folder holds something else or another version's run; nothing was touched.
            StoreError: storage is not usable, or does not refuse to replace a file, as one clear line.
        """
        store = open_store(uri)
        check_run(store)
        run = cls(store, config, ttl_s=ttl_s)
        marker = to_json({"kind": _KIND, "version": VERSION, "made_by": __version__, "at": now()})
        if store.put_if_absent(_MARKER, marker) and store.put_if_absent(_MARKER, marker):
            raise StoreError(
                f"{store.uri} replaces what is to be created only once (on S3: If-None-Match is ignored), so "
                "two drivers could not be kept apart: use a storage with conditional writes"
            )
        return run

    @contextmanager
    def locked(self, *, wait_s: float = 0.0) -> Iterator["RunFolder"]:
        """Hold the driver's lease; on entry, write the config and clear what killed writers left.

        Inside itself it does nothing more, so a job may hold it around several things.

        Args:
            wait_s: How long to wait for a living driver to end.

        Raises:
            RunLockedError: a living driver has it; nothing was touched.
        """
        if self.lease.epoch:
            yield self
            return
        self.lease.acquire(wait_s=wait_s)
        try:
            self.store.clear_unfinished(older_than_s=_STALE_AFTER_S)
            self._write_config()
            yield self
        finally:
            self.lease.release()

    @property
    def fenced_store(self) -> Store:
        """The store for what is committed while the lease is held."""
        return self.store.fenced(self.lease.fence) if self.lease.epoch else self.store

    def record(self, name: str) -> StepRecord | None:
        """The commit record of a step as of the newest submission that finished it."""
        return self._read_record(f"{STEPS}/{name}.json")

    def finished(self, name: str, fingerprint: str) -> StepRecord | None:
        """The commit record of a step that ever finished with this fingerprint and kept its artefacts."""
        record = self._read_record(_history(name, fingerprint))
        if record is None or record.fingerprint != fingerprint:
            return None
        if record.has_artefacts and self.store.is_empty(record.artefacts):
            logger.warning("%s was finished, but %s is gone: it runs again", name, record.artefacts)
            return None
        is_shared = record.lineage not in ("", record.fingerprint)
        if is_shared and any(
            other.epoch > record.epoch for other in self._records_in(name, record.artefacts).values()
        ):
            return None  # of a driver that had been followed, by one that has made the step grow
        return record

    def commit(self, record: StepRecord) -> None:
        """Write a finished step's record, last of all it writes.

        Raises:
            StoreError: the lease is no longer ours; nothing was written.
        """
        self.lease.check()
        self.store.write_json(_history(record.name, record.fingerprint), record.to_dict())
        faults.reach("recorded")
        self.point_to(record)

    def forget(self, name: str, folder: str) -> None:
        """Open a step again whose records say that it finished in this artefact folder; its files stay.

        Raises:
            StoreError: the lease is no longer ours; nothing was changed.
        """
        self.lease.check()
        for key in self._records_in(name, folder):
            self.store.delete(key)
        newest = self.record(name)
        if newest is not None and newest.artefacts == folder:
            self.store.delete(f"{STEPS}/{name}.json")

    def point_to(self, record: StepRecord) -> None:
        """Make a record the newest of its step.

        Raises:
            StoreError: the lease is no longer ours; nothing was written.
        """
        if self.record(record.name) != record:
            self.lease.check()
            self.store.write_json(f"{STEPS}/{record.name}.json", record.to_dict())

    def _records_in(self, name: str, folder: str) -> dict[str, StepRecord]:
        """Records of a step that finished in this artefact folder, by key; several only if it grows."""
        keys = [key for key in self.store.list(_HISTORY) if key.startswith(f"{_HISTORY}/{name}-")]
        records = {key: record for key in keys if (record := self._read_record(key)) is not None}
        return {key: each for key, each in records.items() if (each.name, each.artefacts) == (name, folder)}

    def _read_record(self, key: str) -> StepRecord | None:
        try:
            return StepRecord.from_dict(self.store.read_json(key))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise DamagedError(f"{self.store.uri}/{key}: {error}: {REPAIR}") from None

    def _write_config(self) -> None:
        try:
            before = self.store.read_json(_CONFIG)
        except FileNotFoundError:
            before = None
        if before == self.config:
            return
        if before is not None:
            for line in changes(before, self.config):
                logger.info("changed since the last submission: %s", line)
        self.store.write_json(_CONFIG, self.config)


def check_run(store: Store) -> bool:
    """Whether a run folder lies here (True) or nothing at all (False). Touches nothing.

    Raises:
        ValueError: something else lies here, or another version's run.
    """
    marker = _read_marker(store)
    if marker is None:
        found = next(store.iterate(), None)
        if found is None:
            return False
        marker = _read_marker(store)  # another driver may have made it between the two looks
        if marker is None:
            raise ValueError(
                f"{store.uri} is no run folder but holds {found!r}: choose an empty or new folder"
            )
    if not isinstance(marker, dict) or marker.get("kind") != _KIND:
        raise ValueError(f"{store.uri}/{_MARKER} is not of a uniemo_ray run: choose an empty or new folder")
    if marker.get("version") != VERSION:
        why = _WHY_OLDER_ENDS.get(marker.get("version", 0))
        raise ValueError(
            f"{store.uri} was written in run format {marker.get('version')} by uniemo_ray "
            f"{marker.get('made_by')}, this is uniemo_ray {__version__} with format {VERSION}"
            f"{f' ({why})' if why else ''}: use that release, or choose a new folder"
        )
    return True


def changes(before: Any, after: Any, path: str = "") -> list[str]:
    """Settings that differ between two plain configs, as `a.b: old -> new`."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = list(dict.fromkeys([*before, *after]))
        parts = (changes(before.get(key), after.get(key), f"{path}.{key}" if path else key) for key in keys)
        return [line for part in parts for line in part]
    return [] if before == after else [f"{path}: {json.dumps(before)} -> {json.dumps(after)}"]


def _read_marker(store: Store) -> Any:
    try:
        return store.read_json(_MARKER)
    except FileNotFoundError:
        return None
    except DamagedError:
        return {}  # a file of that name which is no JSON was not written by us


def _history(name: str, fingerprint: str) -> str:
    return f"{_HISTORY}/{name}-{fingerprint[:12]}.json"
