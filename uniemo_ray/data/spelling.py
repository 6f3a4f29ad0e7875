"""Listed paths that the disk spells in another way: other capitals, Unicode form, ending or first folders."""

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from uniemo_ray.data.samples import IMAGE_SUFFIXES, Entry

_OTHER_FORM = "have other capitals or another Unicode form on disk"
_OTHER_START = "are listed with other folders in front"


class _Names(NamedTuple):
    """What lies in one folder."""

    exact: frozenset[str]
    folded: dict[str, str]
    """Name without case and Unicode form, to the name on disk."""


class Spelling:
    """The files of a data folder by the names that lists give them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[str, _Names] = {}

    def find(self, path: str) -> str | None:
        """The path as the disk spells it; an image without ending keeps none where one of the usual fits."""
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts:
            return None
        place = ""
        for part in pure.parts[:-1]:
            real = self._real(place, part)
            if real is None:
                return None
            place = f"{place}/{real}" if place else real
        name = self._real(place, pure.name) or self._with_ending(place, pure.name)
        return f"{place}/{name}" if place and name else name

    def _real(self, place: str, name: str) -> str | None:
        names = self._names(place)
        return name if name in names.exact else names.folded.get(_fold(name))

    def _with_ending(self, place: str, name: str) -> str | None:
        names = self._names(place)
        if any(name + ending in names.exact for ending in IMAGE_SUFFIXES):
            return name  # its ending is found when it is read
        found = (names.folded.get(_fold(name + ending)) for ending in IMAGE_SUFFIXES)
        return next((real for real in found if real), None)

    def _names(self, place: str) -> _Names:
        if place not in self._folders:
            try:
                names = sorted(os.listdir(self._root / place))
            except (OSError, ValueError):
                names = []  # the reader of the sample says what is wrong
            folded = {_fold(name): name for name in reversed(names)}
            self._folders[place] = _Names(frozenset(names), folded)
        return self._folders[place]


def respell(entries: Iterable[Entry], root: Path) -> tuple[list[Entry], list[str]]:
    """Entries with the paths of their files on disk, and a line for each kind of difference.

    Entries whose files are in no spelling there keep their paths.
    """
    spelling, seen = Spelling(root), dict[str, list[str]]()
    found = []
    for entry in entries:
        image, why = _on_disk(entry.image, spelling, root)
        if why:
            seen.setdefault(why, []).append(f"{entry.image} is {image}")
        annotation = _on_disk(entry.annotation, spelling, root)[0] if entry.annotation else None
        found.append(entry._replace(image=image, annotation=annotation))
    return found, [
        f"{len(cases)} listed images {why} ({cases[0]} for example)" for why, cases in seen.items()
    ]


def _on_disk(path: str, spelling: Spelling, root: Path) -> tuple[str, str]:
    """The path to read, and how it differs from the listed one ('' if not at all)."""
    found = spelling.find(path)
    if found is not None:
        is_same = found == PurePosixPath(path).as_posix()
        return (path, "") if is_same else (found, _OTHER_FORM)
    for shorter in _without_start(path, root):
        found = spelling.find(shorter)
        if found is not None:
            return found, _OTHER_START
    return path, ""


def _without_start(path: str, root: Path) -> list[str]:
    """The path below the root, below the disk's root, and without its first folder."""
    pure = PurePosixPath(path)
    below = [
        pure.relative_to(start).as_posix() for start in (root.absolute(), "/") if pure.is_relative_to(start)
    ]
    parts = pure.parts[1:] if pure.is_absolute() else pure.parts
    return [*below, *(["/".join(parts[1:])] if len(parts) > 1 else [])]


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
