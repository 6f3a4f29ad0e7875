"""The store of generations. Any endpoint replica can read and answer for any generation in it.

ID/request.json   the parameters, the owner and the deadlines
ID/state.json     the progress, written by the replica that generates
ID/cancel         exists after somebody cancelled the generation; the other files are deleted then
ID/preview-I      the latest preview of image I (WebP)
ID/image-I        image I

On a disk the files have mode 0600, in folders of mode 0700.
"""

import logging
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from uniemo_ray.service.backend import GenerationParams, Refusal
from uniemo_ray.store.base import Store, to_json
from uniemo_ray.store.errors import DamagedError, StoreError, StoreFullError

logger = logging.getLogger(__name__)

Status = Literal["queued", "running", "done", "failed", "cancelled"]
FINAL = ("done", "failed", "cancelled")
_ID = re.compile(r"[A-Za-z0-9_-]{22}")
"""Anything else in the store is not a generation and is never deleted."""
INTERRUPTED = Refusal(
    "the server was stopped or overloaded before all images were finished: send the request again",
    is_server_error=True,
)
NOT_STORED = Refusal(
    "the server's storage is full or cannot be written, so the images were not kept: send the request again",
    is_server_error=True,
)
PROBE_BYTES = 65_536
"""Size of the file that shows whether the store takes more. Some small images need about as much."""


@dataclass(frozen=True)
class StoredGeneration:
    """A generation as it was requested; it never changes."""

    id: str
    owner: str
    """Name of the token that may see it."""
    params: GenerationParams
    created_at: float
    """Unix time in seconds."""
    deadline_at: float
    """Unix time in seconds; a generation that is unfinished then has failed."""
    expires_at: float
    """Unix time in seconds after which the generation is deleted."""


@dataclass(frozen=True)
class ImageState:
    """Progress of one image."""

    step: int = 0
    """Finished sampling steps."""
    of: int = 0
    """Sampling steps in all; 0 while unknown."""
    previews: int = 0
    """Number of previews so far. Only the last one is kept."""
    sha256: str = ""
    """Checksum of the finished file; empty before."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Provenance of the finished image; empty before."""
    batch: int = 0
    """Number of images in the batch of the finished image; 0 before."""


@dataclass(frozen=True)
class GenerationState:
    """Progress of a generation."""

    status: Status
    images: tuple[ImageState, ...]
    problem: Refusal | None = None
    """Why it failed."""

    @property
    def is_final(self) -> bool:
        """Whether the state can no longer change."""
        return self.status in FINAL


def explain_kept(problem: Refusal, images: Sequence[ImageState]) -> Refusal:
    """A problem of a generation; if some of its images are finished, it says that they are kept."""
    finished = sum(bool(image.sha256) for image in images)
    if not finished:
        return problem
    return problem._replace(
        detail=f"{problem.detail}; {finished} of {len(images)} images are finished and kept"
    )


class GenerationStore:
    """All generations of a service."""

    def __init__(self, store: Store, *, ttl_s: float, clock: Callable[[], float] = time.time) -> None:
        """Keep the store.

        Args:
            store: files that every replica can reach.
            ttl_s: how long a generation is kept after its request.
            clock: Unix time in seconds.
        """
        self.store, self.ttl_s, self.clock = store.private(), ttl_s, clock
        self.unrecorded: dict[str, GenerationState] = {}
        """Final states of generations of this process that could not be written yet."""
        self.probe = f"probe-{secrets.token_hex(8)}"

    def check_writable(self) -> None:
        """Write a small file and delete it again. Raises StoreError if that fails."""
        try:
            self.store.write_bytes(self.probe, bytes(PROBE_BYTES))
        finally:
            self.store.delete(self.probe)

    def create(self, params: GenerationParams, *, owner: str, timeout_s: float) -> StoredGeneration:
        """Store a new generation, which must finish within `timeout_s`."""
        now = self.clock()
        generation = StoredGeneration(
            secrets.token_urlsafe(16), owner, params, now, now + timeout_s, now + self.ttl_s
        )
        self.store.write_json(f"{generation.id}/request.json", asdict(generation))
        return generation

    def find(self, generation_id: str, *, owner: str) -> StoredGeneration | None:
        """A generation; None if it is unknown, expired, cancelled or of another owner."""
        try:
            raw = self.store.read_json(f"{generation_id}/request.json")
        except FileNotFoundError:
            return None
        generation = StoredGeneration(**raw | {"params": GenerationParams(**raw["params"])})
        is_visible = generation.owner == owner and self.clock() < generation.expires_at
        return generation if is_visible and not self.is_cancelled(generation_id) else None

    def state(self, generation: StoredGeneration) -> GenerationState:
        """The state of a generation for its caller, with cancelling and the deadline taken into account."""
        state = self._stored_state(generation.id)
        if state is None:
            state = GenerationState("queued", (ImageState(),) * generation.params.n)
        if state.is_final:
            return state
        if self.is_cancelled(generation.id):
            return replace(state, status="cancelled")
        if generation.id in self.unrecorded:
            return self.unrecorded[generation.id]
        if self.clock() > generation.deadline_at:
            return replace(state, status="failed", problem=INTERRUPTED)
        return state

    def write_state(self, generation_id: str, state: GenerationState) -> None:
        """Store the state of a generation."""
        self.store.write_bytes(f"{generation_id}/state.json", to_json(asdict(state)))

    def _stored_state(self, generation_id: str) -> GenerationState | None:
        try:
            return _read_state(self.store.read_json(f"{generation_id}/state.json"))
        except FileNotFoundError:
            return None

    def fail_unfinished(self, generation_id: str, problem: Refusal = INTERRUPTED) -> None:
        """Record that a generation has failed, unless its state is final or somebody cancelled it.

        Images that are finished are kept. If the store cannot be written, this process answers with the
        failure, and `record_failures` writes it later.
        """
        failed = GenerationState("failed", (), problem)
        try:
            stored = self._stored_state(generation_id) or failed
            failed = replace(stored, status="failed", problem=explain_kept(problem, stored.images))
            self._write_final(generation_id, failed)
        except StoreError as error:
            logger.error("the end of a generation could not be stored: %s", error)
            self.unrecorded[generation_id] = failed

    def record_failures(self) -> None:
        """Write what `fail_unfinished` could not write. Does nothing while the store still refuses."""
        for generation_id, failed in list(self.unrecorded.items()):
            try:
                self._write_final(generation_id, failed)
            except StoreError:
                return
            self.unrecorded.pop(generation_id, None)

    def _write_final(self, generation_id: str, failed: GenerationState) -> None:
        state = self._stored_state(generation_id)
        if state is not None and state.is_final:
            return
        if self.is_cancelled(generation_id):
            self.cancel(generation_id)  # deletes what was written meanwhile
        else:
            self.write_state(generation_id, failed)

    def delete(self, generation_id: str) -> None:
        """Delete every file of a generation that never started."""
        self._delete(generation_id, self.store.list(generation_id))

    def cancel(self, generation_id: str) -> None:
        """Cancel a generation: the replica that works on it stops, and all its other files are deleted."""
        mark = to_json({"expires_at": self._expires_at(generation_id)})
        try:
            self.store.write_bytes(f"{generation_id}/cancel", mark)
        except StoreFullError:
            self._delete_content(generation_id)  # makes room
            self.store.write_bytes(f"{generation_id}/cancel", mark)
        self._delete_content(generation_id)

    def _delete_content(self, generation_id: str) -> None:
        for key in self.store.list(generation_id):
            if key != f"{generation_id}/cancel":
                self.store.delete(key)

    def delete_previews(self, generation_id: str) -> None:
        """Delete the previews of a generation, which makes room in a full store."""
        for key in self.store.list(generation_id):
            if key.partition("/")[2].startswith("preview-"):
                self.store.delete(key)

    def is_cancelled(self, generation_id: str) -> bool:
        """Whether somebody cancelled the generation."""
        return self.store.exists(f"{generation_id}/cancel")

    def write_image(self, generation_id: str, name: str, data: bytes) -> None:
        """Store an image or a preview under a name like `image-0` or `preview-0`."""
        self.store.write_bytes(f"{generation_id}/{name}", data)

    def read_image(self, generation_id: str, name: str) -> bytes | None:
        """The file that `write_image` stored under a name; None before."""
        try:
            return self.store.read_bytes(f"{generation_id}/{name}")
        except FileNotFoundError:
            return None

    def presigned_url(self, generation: StoredGeneration, name: str) -> str | None:
        """A URL on S3 that needs no token and is valid until the generation expires; None on a disk."""
        ttl_s = max(1, generation.expires_at - self.clock())
        return self.store.presigned_url(f"{generation.id}/{name}", ttl_s=ttl_s)

    def delete_expired(self) -> int:
        """Delete every expired generation; returns how many there were."""
        keys = self.store.list()
        ids = {key.partition("/")[0] for key in keys}
        expired = {name for name in ids if _ID.fullmatch(name) and self._is_expired(name)}
        for generation_id in expired:
            self._delete(generation_id, [key for key in keys if key.partition("/")[0] == generation_id])
        return len(expired)

    def _delete(self, generation_id: str, keys: Iterable[str]) -> None:
        for key in keys:
            self.store.delete(key)
        folder = self.store.local_path_or_none(generation_id)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)  # a disk keeps the empty folder otherwise

    def _is_expired(self, generation_id: str) -> bool:
        return bool(self.clock() >= self._expires_at(generation_id, unknown=0.0))

    def _expires_at(self, generation_id: str, *, unknown: float | None = None) -> float:
        """When a generation expires; without a readable file, `unknown` or after the ordinary time."""
        for name in ("request.json", "cancel"):
            try:
                return float(self.store.read_json(f"{generation_id}/{name}")["expires_at"])
            except FileNotFoundError:
                continue  # cancelled, or a deletion was interrupted, or a state was written after it
            except (DamagedError, KeyError, TypeError, ValueError):
                logger.warning("a generation has a file that cannot be read")
                break
        return self.clock() + self.ttl_s if unknown is None else unknown


def _read_state(raw: dict[str, Any]) -> GenerationState:
    problem = raw["problem"]
    return GenerationState(
        raw["status"],
        tuple(ImageState(**image) for image in raw["images"]),
        None if problem is None else Refusal(*problem),
    )
