"""What a run needs of its storage; the same words for a local folder and for S3."""

import builtins
import copy
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, Self

from pyarrow.fs import FileSystem

from uniemo_ray.store.atomic import write_atomically
from uniemo_ray.store.errors import DamagedError

_CHUNK = 1 << 23
_FILES_AT_ONCE = 4


class Fence(Protocol):
    """A driver's lease, as far as a store has to know it."""

    @property
    def epoch(self) -> int:
        """Number of the lease; 0 when none is held."""
        ...

    def check(self) -> None:
        """Ask before anything is committed whether the lease still counts.

        Raises:
            SupersededError: it is not held, or another driver has taken it over.
        """
        ...


class Store(ABC):
    """A tree of small and large files under one root. Keys are relative, with `/`.

    A reader sees either nothing, the old or the new content of a key, never a part of it. Instances can be
    pickled and sent to workers.

    Raises (all methods):
        StoreError: storage is full, forbidden, unreachable or damaged, as one clear line.
        ValueError: a key that is empty, absolute or leaves the root.
    """

    fence: Fence | None = None
    """The driver's lease that shards are committed under; None outside of a run."""

    def fenced(self, fence: Fence) -> Self:
        """The same store, for committing under a lease; `sub` hands the lease on."""
        store = copy.copy(self)
        store.fence = fence
        return store

    def check_fence(self) -> None:
        """Ask before something is written whether the store's lease is still the newest; without one, pass.

        Raises:
            SupersededError: another driver has taken over.
        """
        if self.fence is not None:
            self.fence.check()

    @property
    @abstractmethod
    def uri(self) -> str:
        """Where the root is, as a user would write it."""

    @abstractmethod
    def read_bytes(self, key: str) -> bytes:
        """Whole content of a key; FileNotFoundError when there is none."""

    @abstractmethod
    def write_bytes(self, key: str, data: bytes) -> None:
        """Create or replace a key in one step; durable when this returns."""

    @abstractmethod
    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Create a key unless it exists, decided by the storage: of all racing writers, one gets True."""

    @abstractmethod
    def replace(self, key: str, data: bytes, *, expected: bytes) -> bool:
        """Replace a key's content if it is still what is expected; False when it is not, or gone.

        S3 decides this itself; on disk the content is looked at right before.
        """

    @abstractmethod
    def put_file(self, path: Path, key: str) -> None:
        """Create or replace a key with a local file's content, in one step, without holding it in memory."""

    @abstractmethod
    def copy(self, source: str, key: str) -> None:
        """Create or replace a key with the content of another one; S3 does it without this machine."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Whether a file has this key (folders do not count)."""

    def iterate(self, folder: str = "") -> Iterator[str]:
        """Keys of all files below a folder, relative to the root, unordered, without temporary files."""
        return (key for key, _ in self.iterate_tagged(folder))

    @abstractmethod
    def iterate_tagged(self, folder: str = "") -> Iterator[tuple[str, str]]:
        """Keys as `iterate` gives them, each with a tag that changes when the file is written anew."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove a key; one that does not exist is fine."""

    @abstractmethod
    def clear_unfinished(self, *, older_than_s: float) -> int:
        """Drop what killed writers left unfinished so long ago, by the storage's clock; returns how many."""

    @abstractmethod
    def sub(self, folder: str) -> "Store":
        """The store whose root is a folder of this one."""

    def private(self) -> Self:
        """The same store, whose new files only their owner may read; on S3 the bucket decides that."""
        return self

    @abstractmethod
    def local_path_or_none(self, key: str = "") -> Path | None:
        """The path of a key (or of the root) on this machine's disk; None when it is remote."""

    def presigned_url(self, key: str, *, ttl_s: float) -> str | None:
        """An address where anybody can read a key for some seconds; None where storage has no such thing."""
        return None

    @abstractmethod
    def arrow(self) -> tuple[FileSystem, str]:
        """File system of pyarrow and the root's path in it, for bulk reads and writes (such as Ray Data)."""

    def list(self, folder: str = "") -> list[str]:
        """Sorted keys of all files below a folder, relative to the root."""
        return sorted(self.iterate(folder))

    def is_empty(self, folder: str = "") -> bool:
        """Whether no file lies below a folder."""
        return next(self.iterate(folder), None) is None

    def read_json(self, key: str) -> Any:
        """A JSON file's content; FileNotFoundError when there is none, DamagedError when it is none."""
        try:
            return json.loads(self.read_bytes(key))
        except ValueError as error:
            raise DamagedError(
                f"{self.uri}/{key} holds no valid JSON ({error}): restore it or delete it"
            ) from None

    def write_json(self, key: str, value: Any) -> None:
        """Create or replace a JSON file; keys keep their order."""
        self.write_bytes(key, to_json(value))

    def upload_dir(self, source: Path, folder: str = "") -> builtins.list[str]:
        """Copy a local folder's files below a folder, each in one step; returns their keys, sorted."""
        if not source.is_dir():
            raise ValueError(f"upload_dir expects a folder, got {source}")
        base = f"{folder}/" if folder else ""
        files = sorted(path for path in source.rglob("*") if path.is_file())
        keys = [base + path.relative_to(source).as_posix() for path in files]
        for path, key in zip(files, keys, strict=True):
            self.put_file(path, key)
        return keys

    def download_dir(self, folder: str, target: Path) -> builtins.list[Path]:
        """Copy all files below a folder into a local folder, each in one step; returns the paths, sorted.

        Raises:
            FileNotFoundError: when no file lies there (a remote folder without files does not exist).
        """
        keys = self.list(folder)
        if not keys:
            raise FileNotFoundError(f"no files below {self.uri}/{folder}")
        paths = [target / (key.removeprefix(f"{folder}/") if folder else key) for key in keys]
        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:  # one stream is far slower than a network
            list(pool.map(self.get_file, keys, paths))
        return paths

    def get_file(self, key: str, path: Path) -> None:
        """Copy one file to this machine, in one step, without holding it in memory."""
        filesystem, root = self.arrow()
        # left to itself, pyarrow unpacks what is called .gz
        stream = filesystem.open_input_stream(f"{root}/{key}", compression=None)
        with stream, write_atomically(path) as file:
            shutil.copyfileobj(stream, file, _CHUNK)


def to_json(value: Any) -> bytes:
    """Readable JSON with a final newline; NaN and infinity are refused with ValueError."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def check_key(key: str) -> str:
    """The key itself, or ValueError for one that is empty, absolute or leaves the root."""
    parts = key.split("/")
    if not key or any(part in ("", ".", "..") for part in parts) or "\\" in key or "\0" in key:
        raise ValueError(f"expected a relative key such as 'steps/ingest.json', got {key!r}")
    return key
