"""Folders of base weights (CLIP, diffusion): on this machine, or in storage and then copied to it once."""

import fcntl
import os
import shutil
from pathlib import Path

from pyarrow import fs

from uniemo_ray.addresses import expand
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.fingerprint import fingerprint

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
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / _CACHE
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / fingerprint([name, stamps])[:16]
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of a machine would all copy it at once
        if not target.is_dir():
            unfinished = target.with_suffix(".part")
            shutil.rmtree(unfinished, ignore_errors=True)
            store.download_dir("", unfinished)
            unfinished.rename(target)
    return target
