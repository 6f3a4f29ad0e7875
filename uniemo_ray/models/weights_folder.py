"""Folders of base weights (CLIP, diffusion): on this machine, or in storage and then copied to it once."""

import errno
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyarrow import fs

from uniemo_ray.addresses import expand, home_folder
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.fingerprint import fingerprint

_CACHE = "uniemo_ray/weights"
_NO_LOCKS = frozenset(
    (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF)
)


def local_folder(name: str) -> Path:
    """Where a folder of weights can be read.

    Args:
        name: a local path, which need not exist, or `s3://bucket/prefix`. That is copied below
            `$XDG_CACHE_HOME` (`~/.cache`) once for each machine, and again when its files have changed.

    Raises:
        ValueError: storage holds nothing there, or the address is mangled.
        StoreError: storage failed.
    """
    name = expand(name)
    if "://" not in name:
        return Path(name)
    store = open_store(name)
    filesystem, root = store.arrow()
    listed = filesystem.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
    stamps = sorted([file.path, file.size, str(file.mtime_ns)] for file in listed if file.is_file)
    if not stamps:
        raise ValueError(f"{name} holds no files: give a folder that `uniemo fetch --to` has written")
    target = _cache_folder() / fingerprint([name, stamps])[:16]
    with _locked(target.with_suffix(".lock")) as is_alone:
        if not target.is_dir():
            ending = ".part" if is_alone else f".{secrets.token_hex(4)}.part"
            unfinished = target.with_suffix(ending)
            shutil.rmtree(unfinished, ignore_errors=True)
            store.download_dir("", unfinished)
            _take_place(unfinished, target)
    return target


def _cache_folder() -> Path:
    """A folder that can be written.

    Raises:
        ValueError: there is none.
    """
    named, home = os.environ.get("XDG_CACHE_HOME"), home_folder()
    advice = "set XDG_CACHE_HOME to a folder that can be written and has room for the weights"
    if not named and home is None:
        raise ValueError(f"weights are copied to a cache, and this user has no home folder: {advice}")
    cache = (Path(named) if named else Path(home or ".") / ".cache") / _CACHE
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            return cache
    except OSError as error:
        raise ValueError(f"weights are copied to {cache}, which fails ({error.strerror}): {advice}") from None


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Wait until no other process of this machine holds the lock; whether the file system has locks."""
    with path.open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of a machine would all copy it at once
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            yield False  # some network file systems: then each copies it, and the first one counts
            return
        yield True


def _take_place(unfinished: Path, target: Path) -> None:
    try:
        unfinished.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(unfinished, ignore_errors=True)  # another process was faster
