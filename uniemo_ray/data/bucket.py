"""A data set in a bucket: an outline of its files on this disk, and the files of a shard where they are read.

Readers know local folders only. The outline is one: it has every file of the bucket's folder under its name,
with its size and time of change. Lists and tables are there with their content; pictures and annotations are
empty space. Nobody looks inside them before the tasks do, which fetch the files of their own shard.
"""

import atexit
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path, PurePosixPath

from pyarrow.fs import FileInfo, FileSelector, FileType

from uniemo_ray.data.folder import FolderError
from uniemo_ray.data.samples import IMAGE_SUFFIXES, Entry
from uniemo_ray.scratch import scratch_folder
from uniemo_ray.store.base import Store
from uniemo_ray.store.filesystem import open_store

SCHEME = "s3://"
MOST_TABLES = 100
"""More files than this in one folder that are no pictures are annotations, which the tasks read."""
MOST_TABLE_BYTES = 1 << 28
"""A larger file is no list of a data set."""
MOST_NAME_BYTES = 255
_AT_ONCE = 16
"""Files that are fetched at a time: each costs a round trip."""


def is_bucket(root: str | Path) -> bool:
    """Whether a data folder is an address in storage."""
    return "://" in str(root)


def open_bucket(root: str) -> Store:
    """The store of a data folder in a bucket. Nothing is written to it.

    Raises:
        FolderError: no address that data can be read from, or a bucket that is not there or not readable.
    """
    if not root.startswith(SCHEME):
        known = "a data set is read from a folder or from s3://bucket/folder"
        other = "mount other storage as a folder, or use its S3 interface with AWS_ENDPOINT_URL"
        raise FolderError([f"{root}: {known}; {other}"])
    if not root.removeprefix(SCHEME).strip("/").partition("/")[2]:
        example = f"{root.rstrip('/')}/EmoSet"
        raise FolderError([f"{root}: name the data set's folder in the bucket, as in {example}"])
    try:
        return open_store(root)
    except ValueError as error:
        raise FolderError([str(error)]) from None


@cache
def outline(root: str) -> Path:
    """A folder that looks like the data folder in the bucket; kept until this process ends.

    Raises:
        FolderError: there is nothing, or it cannot be listed.
    """
    store = open_bucket(root)
    folder = Path(tempfile.mkdtemp(prefix="uniemo-outline-", dir=scratch_folder()))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    filesystem, base = store.arrow()
    try:
        found = filesystem.get_file_info(FileSelector(base, recursive=True, allow_not_found=True))
    except OSError as error:
        raise FolderError([f"{root}: cannot be listed ({error})"]) from None
    files = {info.path.removeprefix(base).lstrip("/"): info for info in found if info.type == FileType.File}
    if not files:
        raise FolderError([f"{root}: no files there; data.root must be the folder of the data set"])
    tables = set(_tables(files))
    for name, info in files.items():
        if name not in tables and _is_plain(name):
            _make_empty(folder / name, info)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda name: _fetch(store, name, folder, files[name]), sorted(tables)))
    return folder


@contextmanager
def fetched(root: str, entries: Sequence[Entry]) -> Iterator[Path]:
    """A temporary folder with the pictures and annotations of some entries, under their own names.

    A file that is not in the bucket is not in the folder.
    """
    store = open_bucket(root)
    paths = (path for entry in entries for path in (entry.image, entry.annotation))
    names = {path for path in paths if path and _is_plain(path)}
    with tempfile.TemporaryDirectory(prefix="uniemo-shard-", dir=scratch_folder()) as made:
        folder = Path(made)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda name: _fetch(store, name, folder), sorted(names)))
        yield folder


def _fetch(store: Store, name: str, folder: Path, info: FileInfo | None = None) -> None:
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        target.write_bytes(store.read_bytes(name))  # nothing temporary has to be durable
        if info is not None:
            _set_time(target, info)


def _tables(files: Iterable[str]) -> Iterator[str]:
    """Files that readers open for the structure of a data set."""
    others = [name for name in files if not name.lower().endswith(IMAGE_SUFFIXES) and _is_plain(name)]
    in_folder = Counter(PurePosixPath(name).parent for name in others)
    return (name for name in others if in_folder[PurePosixPath(name).parent] <= MOST_TABLES)


def _is_plain(name: str) -> bool:
    """Whether a disk can hold a file of this name."""
    parts = name.split("/")
    return all(
        part not in ("", ".", "..") and "\0" not in part and len(part.encode()) <= MOST_NAME_BYTES
        for part in parts
    )


def _make_empty(path: Path, info: FileInfo) -> None:
    """A file of that size, which takes no space."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(info.size)
    _set_time(path, info)


def _set_time(path: Path, info: FileInfo) -> None:
    os.utime(path, ns=(info.mtime_ns, info.mtime_ns))
