"""Files on a local disk that appear whole or not at all, whenever the process or the machine dies."""

import ctypes
import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from uniemo_ray.store import faults
from uniemo_ray.store.errors import StoreError, explain_os, is_full

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
_PREFIX, _SUFFIX = ".tmp-", ".part"


@contextmanager
def write_atomically(path: Path, *, is_durable: bool = True, is_private: bool = False) -> Iterator[BinaryIO]:
    """A binary file to write to; it takes the path's name, replacing what was there, once all is written.

    Leaving the block by an exception leaves the path as it was.

    Args:
        path: Target; its folder is made where it is missing.
        is_durable: Whether to wait for the disk. Without that, a process that dies leaves no torn file, but
            a machine that dies may; it is for many small files that can be made again.
        is_private: Whether only the owner may read the file and enter folders that are made for it.

    Raises:
        StoreError: disk full, no permission and the like, as one clear line.
    """
    with clear_errors(path), _staged(path, is_private) as temporary:
        with open(temporary, "xb", opener=partial(os.open, mode=0o600 if is_private else 0o666)) as file:
            yield file
            if is_durable:
                _flush(file)
        os.replace(temporary, path)
        if is_durable:
            _flush_folder(path.parent)


def create_atomically(path: Path, data: bytes, *, is_private: bool = False) -> bool:
    """Create a file unless one has this name; of all racing processes exactly one gets True.

    Raises:
        StoreError: disk full, no permission, or a file system without links and exclusive renames.
    """
    with clear_errors(path), _staged(path, is_private) as temporary:
        if path.exists():
            return False
        with open(temporary, "xb", opener=partial(os.open, mode=0o600 if is_private else 0o666)) as file:
            file.write(data)
            _flush(file)
        if temporary.read_bytes() != data:
            raise StoreError(f"{path}: what was written does not read back the same: check this disk")
        faults.reach("staged")
        is_created = _link(temporary, path)
        _flush_folder(path.parent)
        return is_created


def is_temporary(name: str) -> bool:
    """Whether a file name is one of ours for an unfinished write."""
    return name.startswith(_PREFIX) and name.endswith(_SUFFIX)


def remove_stale_temporaries(root: Path, *, older_than_s: float) -> int:
    """Delete what killed writers left below a folder, but no younger files; returns how many.

    Age is by the file system's own clock, which on a shared one is not this machine's.

    Raises:
        StoreError: disk full, no permission and the like, as one clear line.
    """
    with clear_errors(root):
        return _remove_stale(root, older_than_s) if root.is_dir() else 0


def _remove_stale(root: Path, older_than_s: float) -> int:
    with _staged(root / "now") as probe:
        probe.touch()
        limit, count = probe.stat().st_mtime - older_than_s, 0
    for path in root.rglob(f"{_PREFIX}*{_SUFFIX}"):
        try:
            if path.lstat().st_mtime < limit:
                path.unlink()
                count += 1
        except FileNotFoundError:
            continue  # its writer lives and has just finished
    return count


@contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """Turn an OSError about a path into one clear line; a missing file stays FileNotFoundError."""
    try:
        yield
    except (FileNotFoundError, StoreError):
        raise
    except OSError as error:
        if error.errno is None and not is_full(error):
            raise  # not the system's: code inside the block, such as an image decoder, raised it
        raise explain_os(error, str(path)) from error


@contextmanager
def _staged(path: Path, is_private: bool = False) -> Iterator[Path]:
    # A sibling, because only names on one file system can be exchanged in one step.
    try:
        _make_folder(path.parent, 0o700 if is_private else 0o777)
    except FileNotFoundError as error:  # as in /proc; to callers it would look like a key that is not there
        raise StoreError(f"no folder can be made at {path.parent}: choose another folder") from error
    temporary = path.parent / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _link(temporary: Path, path: Path) -> bool:
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        return rename_without_replacing(temporary, path)
    return True


def rename_without_replacing(source: Path, target: Path) -> bool:
    """Linux' exclusive rename, for file systems without hard links; False when the target exists."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is not None:
        if renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE) == 0:
            return True
        code = ctypes.get_errno()
        if code == errno.EEXIST:
            return False
        if code not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(code, os.strerror(code), str(target))
    raise StoreError(
        f"{target.parent} lies on a file system without hard links and exclusive renames: "
        "choose another run folder"
    )


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    # A new name is durable only once its folder is.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_folder(folder: Path, mode: int) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent, mode)
    folder.mkdir(mode, exist_ok=True)
    _flush_folder(folder.parent)
