"""A store in a folder of this machine (or of a file system all machines share)."""

import copy
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from pyarrow.fs import FileSystem, LocalFileSystem
from typing_extensions import override

from uniemo_ray.store.atomic import (
    clear_errors,
    create_atomically,
    is_temporary,
    remove_stale_temporaries,
    write_atomically,
)
from uniemo_ray.store.base import Store, check_key


class LocalStore(Store):
    """Files below one folder, which is created by the first write and not before."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.is_private = False

    def __repr__(self) -> str:
        return f"LocalStore({str(self.root)!r})"

    @property
    @override
    def uri(self) -> str:
        return str(self.root)

    @override
    def read_bytes(self, key: str) -> bytes:
        path = self._path(key)
        with clear_errors(path):
            return path.read_bytes()

    @override
    def write_bytes(self, key: str, data: bytes) -> None:
        with write_atomically(self._path(key), is_private=self.is_private) as file:
            file.write(data)

    @override
    def put_if_absent(self, key: str, data: bytes) -> bool:
        return create_atomically(self._path(key), data, is_private=self.is_private)

    @override
    def replace(self, key: str, data: bytes, *, expected: bytes) -> bool:
        with suppress(FileNotFoundError):
            if self.read_bytes(key) == expected:
                self.write_bytes(key, data)
                return True
        return False

    @override
    def put_file(self, path: Path, key: str) -> None:
        target = write_atomically(self._path(key), is_private=self.is_private)
        with path.open("rb") as source, target as file:
            shutil.copyfileobj(source, file, 1 << 20)

    @override
    def copy(self, source: str, key: str) -> None:
        self.put_file(self._path(source), key)

    @override
    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    @override
    def iterate(self, folder: str = "") -> Iterator[str]:
        return (path.relative_to(self.root).as_posix() for path in self._files(folder))

    @override
    def iterate_tagged(self, folder: str = "") -> Iterator[tuple[str, str]]:
        for path in self._files(folder):
            with suppress(FileNotFoundError):  # deleted between the two looks
                status = path.stat()
                tag = f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"
                yield path.relative_to(self.root).as_posix(), tag

    def _files(self, folder: str) -> Iterator[Path]:
        start = self._path(folder) if folder else self.root
        with clear_errors(start):
            for parent, _, names in os.walk(start, onerror=_refuse):
                yield from (Path(parent, name) for name in names if not is_temporary(name))

    @override
    def delete(self, key: str) -> None:
        path = self._path(key)
        with clear_errors(path):
            path.unlink(missing_ok=True)

    @override
    def clear_unfinished(self, *, older_than_s: float) -> int:
        return remove_stale_temporaries(self.root, older_than_s=older_than_s)

    @override
    def sub(self, folder: str) -> "LocalStore":
        store = LocalStore(self._path(folder))
        store.fence, store.is_private = self.fence, self.is_private
        return store

    @override
    def private(self) -> Self:
        store = copy.copy(self)
        store.is_private = True
        return store

    @override
    def local_path_or_none(self, key: str = "") -> Path:
        return self._path(key) if key else self.root

    @override
    def arrow(self) -> tuple[FileSystem, str]:
        return LocalFileSystem(), str(self.root)

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)


def _refuse(error: OSError) -> None:
    # A folder that is not there has no files; one that cannot be read must not look empty.
    if not isinstance(error, FileNotFoundError):
        raise error
