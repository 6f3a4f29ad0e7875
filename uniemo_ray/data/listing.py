"""Files and folders of a data set, in an order that does not depend on the disk."""

import codecs
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from uniemo_ray.data.folder import FolderError
from uniemo_ray.data.samples import IMAGE_SUFFIXES, Reason, Rejected
from uniemo_ray.text import escaped, is_utf8

_OF_THE_SYSTEM = frozenset(
    (
        "@eadir",
        "@recycle",
        "@tmp",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "__macosx",
        "lost+found",
        "system volume information",
    )
)
"""Folders that network storage and operating systems put beside pictures: thumbnails, deleted files."""

_PACKED = {
    ".parquet": "holds Parquet tables, as data sets on the Hugging Face hub come",
    ".arrow": "holds Arrow tables, as `datasets` saves them",
    ".tar": "holds tar shards, as img2dataset and WebDataset write them",
    ".tfrecord": "holds TFRecords",
    ".zip": "holds archives",
    ".tgz": "holds archives",
    ".rar": "holds archives",
}
"""Endings of files in which other tools keep pictures."""
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Files(NamedTuple):
    """What lies below a folder, as paths relative to it with forward slashes, sorted."""

    images: list[str]
    """Files with an image's ending; nobody has looked inside."""
    others: list[str]
    unnamed: list[str]
    """Images whose names are no UTF-8, with escapes."""
    loops: list[str]
    """Links to folders that are listed already, or that hold the link itself."""


def require_folder(root: str | Path) -> Path:
    """The path of a folder that exists.

    Raises:
        FolderError: there is none.
    """
    if not Path(root).is_dir():
        raise FolderError([f"{root}: no such folder; data.root must be the folder of the data set"])
    return Path(root)


def subfolders(folder: Path) -> list[Path]:
    """Folders directly below, sorted by name; hidden ones and those of the system do not count.

    Raises:
        FolderError: the folder is not readable.
    """
    try:
        found = [child for child in folder.iterdir() if child.is_dir() and not _is_hidden(child.name)]
    except OSError as error:
        raise _unreadable(error) from error
    return sorted(found)


def list_files(folder: Path, *, is_deep: bool = True) -> Files:
    """Files below a folder, or only directly in it; those hidden or of the system do not count.

    Raises:
        FolderError: a folder is not readable.
    """
    images, others, loops = [], [], list[str]()
    for path, names in _walk(folder, loops, is_deep=is_deep):
        for name in names:
            relative = (path / name).relative_to(folder).as_posix()
            if name.lower().endswith(IMAGE_SUFFIXES):
                images.append(relative)
            elif not name.startswith("."):
                others.append(escaped(relative))
    seen = sorted(image for image in images if not Path(image).name.startswith("."))
    unnamed = [escaped(image) for image in seen if not is_utf8(image)]
    return Files([image for image in seen if is_utf8(image)], sorted(others), unnamed, loops)


def _walk(folder: Path, loops: list[str], *, is_deep: bool) -> Iterator[tuple[Path, list[str]]]:
    """Folders and the names of the files in each; links are followed, each real folder is visited once."""
    around = {_identity(parent) for parent in folder.absolute().resolve().parents}
    visited = {_identity(folder)}
    for path, folders, names in os.walk(folder, onerror=_raise_unreadable, followlinks=True):
        kept = []
        # Real folders first: one that a link leads to as well goes by its own name.
        for name in sorted(folders, key=lambda name: ((Path(path) / name).is_symlink(), name)):
            child = Path(path) / name
            if not is_deep or _is_hidden(name):
                continue
            identity = _identity(child)
            if identity in visited or identity in around:
                loops.append(escaped(child.relative_to(folder).as_posix()))
            else:
                visited.add(identity)
                kept.append(name)
        folders[:] = kept
        yield Path(path), names


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError as error:
        raise _unreadable(error) from error
    return status.st_dev, status.st_ino


def note_loops(loops: Sequence[str]) -> list[str]:
    """A line about links that are not followed, if there are any."""
    if not loops:
        return []
    known = "lead to folders that are read already and are not followed"
    return [f"{len(loops)} links {known} ({loops[0]} for example)"]


def refuse_unnamed(path: str, split: str = "") -> Rejected:
    """The refusal of an image whose path is no UTF-8: no shard and no list could name it."""
    shown = escaped(path)
    return Rejected(shown, shown, Reason.PATH_INVALID, "the name is no UTF-8: rename the file", split)


def note_others(others: Sequence[str]) -> list[str]:
    """A line about files that nobody reads, if there are any."""
    if not others:
        return []
    return [f"{len(others)} files are no images by their names and are not read ({others[0]} for example)"]


def packed_form(folder: Path) -> str | None:
    """In which tables or archives a data set lies, such as those of a hub, which no reader opens; or None."""
    for pattern in ("*", "*/*"):
        for path in sorted(folder.glob(pattern)):
            if form := _PACKED.get(path.suffix.lower()):
                shown = escaped(path.relative_to(folder).as_posix())
                return f"{form} ({shown}): write its pictures as files into a folder for each class"
    return None


def read_lines(file: Path) -> list[str]:
    """Lines of a text file without white space around; empty ones stay, so that numbers fit.

    Raises:
        FolderError: the file is not readable as text.
    """
    try:
        data = file.read_bytes()
        encoding = "utf-16" if data[:2] in _UTF_16 else "utf-8-sig"
        return [line.strip() for line in data.decode(encoding).splitlines()]
    except OSError as error:
        raise _unreadable(error) from error
    except UnicodeDecodeError as error:
        raise FolderError([f"{file}: no text in UTF-8 ({error.reason} at byte {error.start})"]) from error


def first_file(folders: Iterable[Path], names: Iterable[str]) -> Path | None:
    """The first of some file names that lies in one of some folders; upper and lower case count the same."""
    wanted = [name.lower() for name in names]
    for folder in folders:
        if folder.is_dir():
            found = {child.name.lower(): child for child in sorted(folder.iterdir()) if child.is_file()}
            for name in wanted:
                if name in found:
                    return found[name]
    return None


def _is_hidden(folder: str) -> bool:
    return folder.startswith(".") or folder.lower() in _OF_THE_SYSTEM


def _raise_unreadable(error: OSError) -> None:
    raise _unreadable(error) from error


def _unreadable(error: OSError) -> FolderError:
    return FolderError([f"{error.filename}: not readable ({error.strerror})"])
