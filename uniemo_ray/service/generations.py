"""Generations that outlive their request: kept in a store, so that any replica can answer for any.

ID/request.json       who asked for what, and until when it counts
ID/state.json     how far it is; written by the replica that paints
ID/cancel         exists once somebody cancelled it
ID/preview-I      image I as it was at its last preview (WebP)
ID/image-I        image I
"""

import logging
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from uniemo_ray.service.backend import GenerationParams, Refusal
from uniemo_ray.store.base import Store, to_json
from uniemo_ray.store.errors import DamagedError

logger = logging.getLogger(__name__)

Status = Literal["queued", "running", "done", "failed", "cancelled"]
FINAL = ("done", "failed", "cancelled")
_ID = re.compile(r"[A-Za-z0-9_-]{22}")
"""Whatever else lies in the store is not ours to delete."""
LOST = Refusal("the server was restarted or overloaded before this was painted: ask again", is_ours=True)


@dataclass(frozen=True)
class StoredGeneration:
    """What was asked for; never changes."""

    id: str
    owner: str
    """Name of the token that may see it."""
    params: GenerationParams
    created_at: float
    """Unix time in seconds, here and below."""
    deadline_at: float
    """Not finished by then, it never will be."""
    expires_at: float
    """Gone after that."""


@dataclass(frozen=True)
class ImageState:
    """How far one image is."""

    step: int = 0
    of: int = 0
    """0 while unknown."""
    previews: int = 0
    """How many there have been; the last one can be fetched."""
    sha256: str = ""
    """Of the finished file; empty before."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Of the finished image."""
    batch: int = 0
    """Images that were painted together with the finished one."""


@dataclass(frozen=True)
class GenerationState:
    """How far a generation is."""

    status: Status
    images: tuple[ImageState, ...]
    problem: Refusal | None = None
    """Why it failed."""

    @property
    def is_final(self) -> bool:
        """Whether nothing will change any more."""
        return self.status in FINAL


class GenerationStore:
    """All generations in a store."""

    def __init__(self, store: Store, *, ttl_s: float, clock: Callable[[], float] = time.time) -> None:
        """Keep the store.

        Args:
            store: reachable by every replica.
            ttl_s: how long a generation counts after it was asked for.
            clock: Unix time in seconds.
        """
        self.store, self.ttl_s, self.clock = store, ttl_s, clock

    def create(self, params: GenerationParams, *, owner: str, patience_s: float) -> StoredGeneration:
        """A new generation that has `patience_s` to finish."""
        now = self.clock()
        generation = StoredGeneration(
            secrets.token_urlsafe(16), owner, params, now, now + patience_s, now + self.ttl_s
        )
        self.store.write_json(f"{generation.id}/request.json", asdict(generation))
        return generation

    def find(self, generation_id: str, *, owner: str) -> StoredGeneration | None:
        """A generation, unless it is unknown, expired, cancelled or somebody else's."""
        try:
            raw = self.store.read_json(f"{generation_id}/request.json")
        except FileNotFoundError:
            return None
        generation = StoredGeneration(**raw | {"params": GenerationParams(**raw["params"])})
        is_there = generation.owner == owner and self.clock() < generation.expires_at
        return generation if is_there and not self.is_cancelled(generation_id) else None

    def state(self, generation: StoredGeneration) -> GenerationState:
        """How far it is, as its caller should see it."""
        try:
            state = _read_state(self.store.read_json(f"{generation.id}/state.json"))
        except FileNotFoundError:
            state = GenerationState("queued", (ImageState(),) * generation.params.n)
        if state.is_final:
            return state
        if self.is_cancelled(generation.id):
            return replace(state, status="cancelled")
        if self.clock() > generation.deadline_at:
            return replace(state, status="failed", problem=LOST)
        return state

    def write(self, generation_id: str, state: GenerationState) -> None:
        """Report progress."""
        self.store.write_bytes(f"{generation_id}/state.json", to_json(asdict(state)))

    def lose(self, generation_id: str) -> None:
        """Report that nobody works on it any more, unless a last report is there."""
        try:
            state = _read_state(self.store.read_json(f"{generation_id}/state.json"))
        except FileNotFoundError:
            state = GenerationState("queued", ())
        if state.is_final:
            return
        if self.is_cancelled(generation_id):
            self.write(generation_id, replace(state, status="cancelled"))
        else:
            self.write(generation_id, replace(state, status="failed", problem=LOST))

    def forget(self, generation_id: str) -> None:
        """Delete a generation that never began."""
        self._delete(generation_id, self.store.list(generation_id))

    def cancel(self, generation_id: str) -> None:
        """Forget a generation: whoever paints it stops, and its pictures are gone."""
        self.store.write_bytes(f"{generation_id}/cancel", b"")
        for key in self.store.list(generation_id):
            if key.partition("/")[2].startswith(("image-", "preview-")):
                self.store.delete(key)

    def is_cancelled(self, generation_id: str) -> bool:
        """Whether somebody asked to stop it."""
        return self.store.exists(f"{generation_id}/cancel")

    def write_picture(self, generation_id: str, name: str, data: bytes) -> None:
        """Keep `image-0` or `preview-0`."""
        self.store.write_bytes(f"{generation_id}/{name}", data)

    def read_picture(self, generation_id: str, name: str) -> bytes | None:
        """What `write_picture` kept; None before."""
        try:
            return self.store.read_bytes(f"{generation_id}/{name}")
        except FileNotFoundError:
            return None

    def link(self, generation: StoredGeneration, name: str) -> str | None:
        """An address that gives a picture without a token until the generation expires, on S3; else None."""
        return self.store.presigned_url(
            f"{generation.id}/{name}", ttl_s=max(1, generation.expires_at - self.clock())
        )

    def sweep(self) -> int:
        """Delete what has expired; returns how many generations."""
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
            shutil.rmtree(folder, ignore_errors=True)  # on a disk, an empty folder is left

    def _is_expired(self, generation_id: str) -> bool:
        try:
            return bool(self.clock() >= self.store.read_json(f"{generation_id}/request.json")["expires_at"])
        except FileNotFoundError:
            return True  # a sweep that was interrupted, or a last report after one
        except (DamagedError, KeyError, TypeError):
            logger.warning("a generation that cannot be read is removed")
            return True


def _read_state(raw: dict[str, Any]) -> GenerationState:
    problem = raw["problem"]
    return GenerationState(
        raw["status"],
        tuple(ImageState(**image) for image in raw["images"]),
        None if problem is None else Refusal(*problem),
    )
