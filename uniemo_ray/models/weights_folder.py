"""Folders of base weights (CLIP, diffusion): on this machine, or in storage and then copied to it once."""

import os
import tempfile
from pathlib import Path

from pyarrow import fs

from uniemo_ray.addresses import expand, home_folder
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.fingerprint import fingerprint
from uniemo_ray.store.made_once import made_once

_CACHE = "uniemo_ray/weights"


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
    return made_once(target, lambda unfinished: store.download_dir("", unfinished))


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
