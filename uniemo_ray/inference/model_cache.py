"""Model folders in storage, copied to a machine once for all of its processes."""

import fcntl
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO

from uniemo_ray.scratch import own_folder
from uniemo_ray.store.made_once import made_once

logger = logging.getLogger(__name__)
_USED = ".used"


class CachedFolder:
    """A folder of this machine, which stays at least as long as this object."""

    def __init__(self, path: Path, lock: IO[str]) -> None:
        self.path, self._lock = path, lock

    def __del__(self) -> None:
        """Let the next model take the place."""
        self._lock.close()


def cached_folder(name: str, make: Callable[[Path], object]) -> CachedFolder:
    """A folder that one process of this machine makes and all others wait for.

    Making one removes those that no process uses any more: a model takes gigabytes, a run has several.

    Args:
        name: tells the content.
        make: writes it at the path that it is given, and raises if it is not as it should be.

    Raises:
        ValueError: the place belongs to another user.
    """
    cache = own_folder("uniemo-models")
    target = cache / name
    lock = _lock_of(target)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)  # before looking: nobody removes it from now on
    except OSError as error:
        logger.info("%s has no locks (%s): unused models stay there", cache, error.strerror)

    def make_room(unfinished: Path) -> None:
        _remove_unused(cache, but=target)
        try:
            make(unfinished)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise

    return CachedFolder(made_once(target, make_room), lock)


def _lock_of(target: Path) -> IO[str]:
    # it stays when the folder goes: whoever waits for it must wait for the same file
    return target.with_name(target.name + _USED).open("a", encoding="utf-8")


def _remove_unused(cache: Path, *, but: Path) -> None:
    for folder in cache.iterdir():
        if folder == but or not folder.is_dir() or folder.suffix:
            continue
        with _lock_of(folder) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # in use, or nobody can tell
            logger.info("removing %s: no process uses this model any more", folder)
            shutil.rmtree(folder, ignore_errors=True)
