"""One driver at a time: a numbered lease on a run folder, the same on disk and on S3."""

import logging
import secrets
import threading
import time
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from types import TracebackType
from typing import Any

from uniemo_ray.store.base import Store, to_json
from uniemo_ray.store.errors import RunLockedError, StoreError
from uniemo_ray.store.fence import LeaseFence, lease_key, leases, newest_epoch
from uniemo_ray.store.process import ProcessIdentity, is_alive, is_same_machine, is_stopped, this_process
from uniemo_ray.store.seal import highest_epoch

logger = logging.getLogger(__name__)
_HEARTBEAT = "beat"
"""Key of the heartbeat in a lease's file: drivers of every release must understand each other."""
_LOOK_AGAIN_S = 2.0
_held: set[str] = (
    set()
)  # tokens of this process, which outlives a lease that it could not write back (disk full)


@dataclass(frozen=True)
class Holder:
    """Who holds one epoch of the lease."""

    process: ProcessIdentity
    token: str
    acquired_at: str
    ttl_s: float
    heartbeat: int = 0
    """Grows while the holder lives; other machines watch it instead of comparing clocks."""
    is_released: bool = False


def _to_json(holder: Holder) -> bytes:
    values = asdict(holder)
    values[_HEARTBEAT] = values.pop("heartbeat")
    return to_json(values)


class Lease:
    """The right to drive a run: the file with the highest number in `lock/` says who has it.

    Taking it creates the next number, which the storage grants to one taker only. So a takeover needs no
    deletion that could hit the wrong file, and a driver that was taken over can see it. A holder on this
    machine is looked up directly; one elsewhere, or one that was stopped, counts as dead when its heartbeat
    has not advanced for `ttl_s` on the watcher's own clock. No two machines' clocks are ever compared.
    """

    def __init__(self, store: Store, *, ttl_s: float = 60.0) -> None:
        self._store, self._ttl_s = store, ttl_s
        self._epoch = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._holder: Holder | None = None

    @property
    def epoch(self) -> int:
        """Number of the held lease; 0 when none is held."""
        return self._epoch

    def acquire(self, *, wait_s: float = 0.0) -> None:
        """Take the lease, from a dead holder if need be.

        Args:
            wait_s: How long to wait for a living driver to end.

        Raises:
            RunLockedError: a living driver has it.
        """
        deadline, is_told = time.monotonic() + wait_s, False
        while True:
            try:
                if self._try_to_take():
                    break
            except RunLockedError as error:
                if time.monotonic() >= deadline:
                    raise
                if not is_told:
                    logger.info("waiting up to %.0f s: %s", wait_s, str(error).partition(": wait until")[0])
                    is_told = True
                time.sleep(min(_LOOK_AGAIN_S, max(0.0, deadline - time.monotonic())))
        self._stop.clear()
        self._thread = threading.Thread(target=self._keep_alive, name="uniemo-lease", daemon=True)
        self._thread.start()

    @property
    def fence(self) -> LeaseFence:
        """What writers on other machines need of this lease."""
        return LeaseFence(self._store, self._epoch)

    def check(self) -> None:
        """Ask before anything is committed whether the lease is still ours.

        Raises:
            SupersededError: it is not held, or another driver has taken it over.
        """
        self.fence.check()

    def release(self) -> None:
        """Give the lease back; a failure to say so is logged, because the process's end says it too."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)  # it may wait for a lost S3 much longer
        if self._holder is not None:
            _held.discard(self._holder.token)
            try:
                self._write(replace(self._holder, is_released=True))
            except StoreError as error:
                logger.warning("lease not given back: %s", error)
        self._thread, self._holder, self._epoch = None, None, 0

    def __enter__(self) -> "Lease":
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.release()

    def _try_to_take(self) -> bool:
        # whoever has removed `lock/` has not removed what was sealed under it: numbers continue above that
        newest = newest_epoch(self._store) or highest_epoch(self._store)
        if newest and not self._is_free(newest):
            return False
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        holder = Holder(this_process(), token=secrets.token_hex(8), acquired_at=now, ttl_s=self._ttl_s)
        if not self._store.put_if_absent(lease_key(newest + 1), _to_json(holder)):
            return False
        if newest_epoch(self._store) != newest + 1:
            # We slept between looking and taking, and the number had come and gone meanwhile.
            self._store.delete(lease_key(newest + 1))
            return False
        self._epoch, self._holder = newest + 1, holder
        _held.add(holder.token)
        for epoch, key in list(leases(self._store)):
            if epoch < self._epoch:
                self._store.delete(key)
        return True

    def _is_free(self, epoch: int) -> bool:
        holder = self._read(epoch)
        if holder is None or holder.is_released:
            return True
        if is_same_machine(holder.process):
            is_ours = holder.process == this_process()
            if holder.token in _held:
                raise self._locked(holder)
            if is_alive(holder.process) and not is_ours:
                if is_stopped(
                    holder.process
                ):  # it may continue any time, and will then find itself superseded
                    return self._stands_still(epoch, holder)
                raise self._locked(holder)
            logger.info(
                "taking over %s: its driver (process %d) is gone", self._store.uri, holder.process.pid
            )
            return True
        return self._stands_still(epoch, holder)

    def _stands_still(self, epoch: int, holder: Holder) -> bool:
        logger.info(
            "waiting %.0f s to see whether the driver on %s still holds %s",
            holder.ttl_s,
            holder.process.host,
            self._store.uri,
        )
        deadline, is_over = time.monotonic() + holder.ttl_s, False
        while not is_over:
            time.sleep(holder.ttl_s / 20)
            asked_at = time.monotonic()
            is_over = asked_at >= deadline
            current = self._read(epoch)
            if current is None or current.is_released:
                return True
            if current.heartbeat != holder.heartbeat:
                raise self._locked(holder)
            if time.monotonic() - asked_at > holder.ttl_s / 4:
                # storage did not answer us, so perhaps not the holder either: it gets its time once more
                deadline, is_over = time.monotonic() + holder.ttl_s, False
        logger.info("taking over %s: the driver on %s is silent", self._store.uri, holder.process.host)
        return True

    def _locked(self, holder: Holder) -> RunLockedError:
        who = f"process {holder.process.pid} on {holder.process.host}"
        return RunLockedError(
            f"{self._store.uri} is in use by {who} since {holder.acquired_at}: "
            "wait until it ends, stop it, or choose another run folder"
        )

    def _keep_alive(self) -> None:
        while not self._stop.wait(self._ttl_s / 4):
            if self._holder is None:
                return
            try:
                if newest_epoch(self._store) != self._epoch:
                    logger.error("another driver has taken over %s", self._store.uri)
                    return
                holder = replace(self._holder, heartbeat=self._holder.heartbeat + 1)
                self._write(holder)
                self._holder = holder
            except (StoreError, OSError) as error:
                logger.warning("lease not renewed, will try again: %s", error)

    def _read(self, epoch: int) -> Holder | None:
        try:
            values: dict[str, Any] = self._store.read_json(lease_key(epoch))
        except FileNotFoundError:
            return None  # a newer holder has cleaned up
        try:
            plain = {
                **values,
                "heartbeat": values[_HEARTBEAT],
                "process": ProcessIdentity(**values["process"]),
            }
            del plain[_HEARTBEAT]
            return Holder(**plain)
        except (TypeError, KeyError) as error:
            raise StoreError(
                f"{self._store.uri}/{lease_key(epoch)} is no lease of this release ({error}): "
                "delete it once no driver works on the run"
            ) from None

    def _write(self, holder: Holder) -> None:
        self._store.write_bytes(lease_key(self._epoch), _to_json(holder))
