"""Reader of one folder per class, with or without a folder per split above.

    root/Amusement/0001.jpg             no splits: they are drawn with a seed
    root/train/amusement/0001.jpg       split folders: train and test, and val where the set has one
    root/images/amusement/0001.jpg      either, one level down

Names of folders are read in any case. Folders inside a class folder are part of it. An image's id is
`label/path` or `split/label/path`, whatever the folders' names look like on disk.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from uniemo_ray.data.folder import FolderError, ListedFolder
from uniemo_ray.data.listing import (
    list_files,
    note_loops,
    note_others,
    packed_form,
    refuse_unnamed,
    require_folder,
    subfolders,
)
from uniemo_ray.data.samples import Entry, Reason, Rejected, normalise_name
from uniemo_ray.data.splits import OFFICIAL, Shares, stratify
from uniemo_ray.emotions import LABEL_SPACES, LabelSpace
from uniemo_ray.text import escaped

SPLIT_NAMES: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
"""Name of a folder to our split; the names are those that Hugging Face's image folders know."""

_KIND_OF_SPACE = {
    "mikels": "data.kind=fi",
    "ekman": "data.kind=emotionroi (or folders with data.labels=ekman)",
    "sentiment": "data.kind=twitter1 or twitter2 (or folders with data.labels=sentiment)",
}


class ClassTable(NamedTuple):
    """What tells one data set of class folders from another."""

    kind: str
    """Its `data.kind`."""
    space: LabelSpace
    classes: Mapping[str, str]
    """Name of a class in the data set, normalised, to our label."""
    shares: Shares
    """Splits of a set that comes without them."""
    label_file: str = ""
    """What may stand in for class folders."""
    is_strict: bool = False
    """Whether a folder of images that is no class is a fault, not a lot of refused images."""

    def label(self, name: str) -> str | None:
        """Our label of a class name in any case and Unicode form, or None."""
        return self.classes.get(normalise_name(unicodedata.normalize("NFC", name)))


class _Part(NamedTuple):
    """All that lies below one split folder, or below a folder without splits."""

    entries: list[Entry]
    refused: list[Rejected]
    others: list[str]
    loops: list[str]
    faults: list[str]
    strange: list[str]
    """Folders of images that are no class, where that is a fault."""


def read_class_folders(root: str | Path, table: ClassTable, *, seed: int) -> ListedFolder:
    """List a data set; its splits are those of its folders, or drawn.

    Args:
        root: Data folder.
        table: Classes and shares of the data set.
        seed: Of the drawn splits.

    Raises:
        FolderError: a class without folder or images, two folders of one class, other classes than said.
    """
    base = find_base(require_folder(root), table)
    folders = _split_folders(base, table)
    parts = {split: _scan(Path(root), folder, table, split) for split, folder in folders.items()}
    beside = _beside(Path(root), base, folders)
    needed = [part for split, part in parts.items() if split in ("", "train")]
    faults = [fault for part in needed for fault in part.faults]
    faults += [fault for part in parts.values() for fault in part.strange]
    if faults:
        raise FolderError(faults)
    by_split, note = _complete({split: part.entries for split, part in parts.items()}, table, seed=seed)
    scanned = [*parts.values(), beside]
    others = [path for part in scanned for path in part.others]
    loops = [path for part in scanned for path in part.loops]
    return ListedFolder(
        Path(root),
        table.space,
        by_split,
        refused=tuple(rejected for part in scanned for rejected in part.refused),
        notes=(*note, *note_others(others), *note_loops(loops)),
    )


def find_base(root: Path, table: ClassTable) -> Path:
    """Where class or split folders lie: the root itself, or its folder `images`."""
    for folder in (root, root / "images"):
        names = [child.name for child in subfolders(folder)] if folder.is_dir() else []
        if any(table.label(name) or name.lower() in SPLIT_NAMES for name in names):
            return folder
    return root


def likely_kind(root: Path) -> str | None:
    """The `data.kind` whose classes have a folder each in `root` or one level down; None if there is none."""
    for folder in (root, root / "images", root / "train"):
        names = {normalise_name(child.name) for child in subfolders(folder)} if folder.is_dir() else set()
        for space in LABEL_SPACES.values():
            if names.issuperset(space.labels):
                return _KIND_OF_SPACE[space.name]
    return None


def class_folders(folder: Path, table: ClassTable) -> dict[str, Path]:
    """Folder of each class that has one.

    Raises:
        FolderError: two folders of one class.
    """
    named = [(label, child) for child in subfolders(folder) if (label := table.label(child.name))]
    names: dict[str, list[str]] = defaultdict(list)
    for label, child in named:
        names[label].append(child.name)
    faults = [
        f"{folder}: {' and '.join(several)} are both the class {label}: merge them"
        for label, several in names.items()
        if len(several) > 1
    ]
    if faults:
        raise FolderError(faults)
    return dict(named)


def _split_folders(base: Path, table: ClassTable) -> dict[str, Path]:
    """Split to folder; a data set without splits is one part named ''."""
    found = [(SPLIT_NAMES[c.name.lower()], c) for c in subfolders(base) if c.name.lower() in SPLIT_NAMES]
    if not found:
        return {"": base}
    names = ", ".join(child.name for _, child in found)
    splits = dict(found)
    if class_folders(base, table):
        raise FolderError(
            [f"{base}: holds class folders beside the split folders {names}: move one kind away"]
        )
    if len(splits) < len(found) or not splits.keys() >= {"train", "test"}:
        form = packed_form(base)
        why = f"; it {form}" if form else ""
        raise FolderError([f"{base}: expected split folders train, test and perhaps val, got {names}{why}"])
    return splits


def _scan(root: Path, folder: Path, table: ClassTable, split: str) -> _Part:
    known = class_folders(folder, table)
    part = _Part([], [], [], [], _missing(folder, known, table), [])
    for label, place in known.items():
        files, at = list_files(place), place.relative_to(root).as_posix()
        prefix = f"{split}/{label}" if split else label
        part.entries.extend(Entry(f"{prefix}/{x}", label, f"{at}/{x}", None) for x in files.images)
        part.refused.extend(refuse_unnamed(f"{at}/{x}", split) for x in files.unnamed)
        part.others.extend(f"{at}/{x}" for x in files.others)
        part.loops.extend(f"{at}/{x}" for x in files.loops)
        if not files.images:
            part.faults.append(f"{place}: holds no image; the class {label} needs at least one")
    for place in [folder, *(child for child in subfolders(folder) if child not in known.values())]:
        why = (
            "lies in no class folder" if place == folder else f"folder {place.name!r} is no class of the set"
        )
        before = len(part.refused)
        _refuse_all(part, root, place, why, split=split, is_deep=place != folder)
        if table.is_strict and place != folder and len(part.refused) > before:
            part.strange.append(
                f"{escaped(str(place))}: is no label of data.labels ({', '.join(table.space.labels)}); add "
                f"it, or move the folder away"
            )
    return part


def _beside(root: Path, base: Path, splits: Mapping[str, Path]) -> _Part:
    """What lies beside split folders, which nobody reads; of a set without splits there is nothing."""
    part = _Part([], [], [], [], [], [])
    if "" in splits:
        return part
    _refuse_all(part, root, base, "lies in no split folder", split="", is_deep=False)
    for place in subfolders(base):
        if place not in splits.values():
            _refuse_all(part, root, place, f"folder {place.name!r} is no split", split="", is_deep=True)
    return part


def _refuse_all(part: _Part, root: Path, place: Path, why: str, *, split: str, is_deep: bool) -> None:
    """Refuse every image in a folder that belongs to no class."""
    files, at = list_files(place, is_deep=is_deep), escaped(place.relative_to(root).as_posix())
    paths = [x if at == "." else f"{at}/{x}" for x in (*files.images, *files.unnamed)]
    part.refused.extend(Rejected(x, x, Reason.UNKNOWN_LABEL, escaped(why), split) for x in paths)
    part.others.extend(x if at == "." else f"{at}/{x}" for x in files.others)
    part.loops.extend(f"{at}/{x}" for x in files.loops)


def _missing(folder: Path, known: Mapping[str, Path], table: ClassTable) -> list[str]:
    lost = [label for label in table.space.labels if label not in known]
    if not lost:
        return []
    names = [escaped(child.name) for child in subfolders(folder)]
    found = (
        f"found {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}" if names else "found no folder"
    )
    nor = f" and no {table.label_file}" if table.label_file else ""
    return [f"{folder}: no folder of {', '.join(lost)}{nor}; {found}{_hint(folder, names, table)}"]


def _hint(folder: Path, names: list[str], table: ClassTable) -> str:
    """What the folder looks like instead."""
    if (folder / "info.json").is_file():
        return "; with info.json it looks like data.kind=emoset"
    normal = {normalise_name(name) for name in names}
    fits = [s for s in LABEL_SPACES.values() if s != table.space and normal.issuperset(s.labels)]
    if fits:
        return f"; these are the classes of {_KIND_OF_SPACE[fits[0].name]}"
    form = packed_form(folder)
    return f"; it {form}" if form else ""


def _complete(
    parts: dict[str, list[Entry]], table: ClassTable, *, seed: int
) -> tuple[dict[str, list[Entry]], list[str]]:
    """All three splits, and a note where some were drawn."""
    if "" in parts:
        drawn = stratify(parts[""], table.shares, seed=seed)
        return drawn, [
            f"the set has no splits: {_sizes(drawn)} images were drawn with data.split_seed={seed}"
        ]
    return with_validation(parts, seed=seed)


def with_validation(
    parts: Mapping[str, list[Entry]], *, seed: int
) -> tuple[dict[str, list[Entry]], list[str]]:
    """Splits with a validation part, drawn from the training part where there is none, and a note if so."""
    given = {split: sorted(part, key=attrgetter("image_id")) for split, part in parts.items()}
    if "val" in parts:
        return given, []
    drawn = {**stratify(given["train"], OFFICIAL, seed=seed), "test": given["test"]}
    note = f"the set has no validation split: {len(drawn['val'])} of its training images were drawn"
    return drawn, [f"{note} with data.split_seed={seed}"]


def _sizes(parts: Mapping[str, list[Entry]]) -> str:
    return ", ".join(f"{len(part)} {split}" for split, part in parts.items())
