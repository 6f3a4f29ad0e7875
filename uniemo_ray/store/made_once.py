"""Files that all processes of a machine share: the first one makes them, the others wait and read."""

import errno
import fcntl
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_NO_LOCKS = frozenset(
    (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF)
)


def made_once(target: Path, make: Callable[[Path], object], *, lock: Path | None = None) -> Path:
    """A file or folder that is there and whole; made by the first process of this machine that asks.

    A process that dies while it makes it leaves an unfinished one under another name, which the next one
    removes. On a file system without locks each process makes its own, and the first one counts.

    Args:
        target: Where it lies; its folder exists. The name tells the content, so it never changes.
        make: Writes it at the path that it is given, which lies beside `target` and does not exist.
        lock: File that is locked meanwhile, where many targets share some; by default one of its own.

    Returns:
        `target`.
    """
    if target.exists():
        return target
    with locked(lock or target.with_name(f"{target.name}.lock")) as is_alone:
        if not target.exists():
            ending = "part" if is_alone else f"{secrets.token_hex(4)}.part"
            unfinished = target.with_name(f"{target.name}.{ending}")
            _remove(unfinished)
            make(unfinished)
            _take_place(unfinished, target)
    return target


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Wait until nobody else on this machine holds the lock; whether the file system has locks."""
    with path.open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            yield False
            return
        yield True


def _take_place(unfinished: Path, target: Path) -> None:
    try:
        unfinished.rename(target)
    except OSError:
        if not target.exists():
            raise
        _remove(unfinished)  # another process was faster


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
