"""Reader of a folder in EmoSet-118K's layout.

`info.json` lists the labels, `train.json`, `val.json` and `test.json` list the images. Two forms of a
list entry exist and both are read: `[emotion, image path, annotation path]`, and the older release's
with an image id in second place, `[emotion, image id, image path, annotation path]` (the paths may be
left out where they follow from emotion and id). The first release's `info.json` holds the emotions' own
`label2idx` at the top. Labels are read in any case, paths with slashes of either kind and as the disk
spells them (`spelling.py`).
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from uniemo_ray.config import SPLITS
from uniemo_ray.data.class_folders import likely_kind
from uniemo_ray.data.folder import FolderError
from uniemo_ray.data.listing import packed_form, refuse_unnamed
from uniemo_ray.data.samples import (
    IMAGE_SUFFIXES,
    AttributeNames,
    Entry,
    Reason,
    Rejected,
    Sample,
    normalise_name,
    read_sample,
)
from uniemo_ray.data.spelling import respell
from uniemo_ray.emotions import MIKELS, LabelSpace
from uniemo_ray.foreign_files import stand_in_at
from uniemo_ray.text import is_utf8

__all__ = ["EmoSetFolder", "Entry", "FolderError", "Rejected", "Sample", "read_sample"]

_FORM = "[emotion, image path, annotation path] or [emotion, image id, image path, annotation path]"


class EmoSetFolder:
    """A data folder whose structure was checked; no image and no annotation has been opened yet.

    Attributes:
        root: The folder.
        space: The classes; of EmoSet itself Mikels' eight emotions.
        names: Scenes and objects of info.json, normalised; empty where it lists none.
        notes: What a user should know and what is no fault.
        refused: Entries whose names are no UTF-8, or whose image id an earlier entry (train before val before
            test) has taken.
    """

    def __init__(self, root: str | Path, space: LabelSpace = MIKELS) -> None:
        """Read info.json and the split files.

        Args:
            root: The folder.
            space: The classes that its files name.

        Raises:
            FolderError: with one line for each fault of the structure.
        """
        self.root, self.space = Path(root), space
        if not self.root.is_dir():
            raise FolderError([f"{root}: no such folder; data.root must be the folder with info.json"])
        kind = None if (self.root / "info.json").exists() else likely_kind(self.root)
        if kind:
            raise FolderError([f"{root}: no info.json, but a folder for each of the classes of {kind}"])
        if not (self.root / "info.json").exists() and (form := packed_form(self.root)):
            raise FolderError([f"{root}: no info.json, but it {form}"])
        faults: list[str] = []
        self.names, self.notes = _read_info(self.root / "info.json", space.labels, faults)
        lists = {split: _read_split(self.root / f"{split}.json", space.labels, faults) for split in SPLITS}
        if not faults:
            faults += _missing_emotions(self.root, space.labels, lists["train"])
        if faults:
            raise FolderError(faults)
        named, unnamed = _with_names(lists)
        found = {split: respell(entries, self.root) for split, entries in named.items()}
        self.notes += [f"{split}.json: {line}" for split, (_, lines) in found.items() for line in lines]
        kept, duplicates = _without_duplicates({split: given for split, (given, _) in found.items()})
        self._entries, self.refused = kept, (*unnamed, *duplicates)

    def entries(self, split: str) -> list[Entry]:
        """Entries of a split in the order of its file, each image id once over all splits."""
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
        return self._entries[split]


def _load_json(path: Path, faults: list[str]) -> Any:
    try:
        if found := stand_in_at(path):
            faults.append(f"{path}: {found}")
            return None
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        faults.append(f"{path}: missing; a folder in EmoSet's layout has info.json and {_split_files()}")
    except OSError as error:
        faults.append(f"{path}: not readable ({error.strerror})")
    except (ValueError, RecursionError) as error:
        faults.append(f"{path}: no valid JSON ({error})")
    return None


def _split_files() -> str:
    return ", ".join(f"{split}.json" for split in SPLITS)


def _read_info(path: Path, known: Sequence[str], faults: list[str]) -> tuple[AttributeNames, list[str]]:
    before = len(faults)
    info = _load_json(path, faults)
    if len(faults) > before:
        return AttributeNames(), []
    if not isinstance(info, dict):
        faults.append(f"{path}: expected a JSON object with the key 'emotion', got {type(info).__name__}")
        return AttributeNames(), []
    if "emotion" not in info and "label2idx" in info:
        info = {"emotion": info}  # the first release
    emotions = _labels(info, "emotion", path, faults)
    unknown = [name for name in emotions if name not in known]
    if unknown:
        faults.append(f"{path}: unknown emotion {unknown[0]!r}; expected {', '.join(known)}")
    elif "emotion" not in info:
        faults.append(f"{path}: the key 'emotion' with its 'label2idx' is missing")
    names = AttributeNames(*(_labels(info, kind, path, faults) for kind in ("scene", "object")))
    notes = [
        f"info.json lists no {kind}s: they are collected from the annotations, any name is taken"
        for kind, listed in (("scene", names.scenes), ("object", names.objects))
        if not listed
    ]
    return names, notes


def _labels(info: dict[str, Any], kind: str, path: Path, faults: list[str]) -> tuple[str, ...]:
    """Normalised label names of one section in the order of their indices; empty without the section."""
    if kind not in info:
        return ()
    section = info[kind]
    table = section.get("label2idx") if isinstance(section, dict) else None
    if not isinstance(table, dict) or not all(_is_index(index) for index in table.values()):
        faults.append(f"{path}: {kind}: expected {{'label2idx': {{name: index}}}}, got {str(section)[:60]!r}")
        return ()
    ordered = sorted(table, key=lambda name: int(table[name]))
    return tuple(dict.fromkeys(map(normalise_name, ordered)))


def _is_index(value: Any) -> bool:
    return type(value) is int or (isinstance(value, str) and value.isascii() and value.isdigit())


def _read_split(path: Path, labels: Sequence[str], faults: list[str]) -> list[Entry]:
    before = len(faults)
    items = _load_json(path, faults)
    if len(faults) > before:
        return []
    if not isinstance(items, list) or not items:
        got = "an empty list" if items == [] else type(items).__name__
        faults.append(f"{path}: expected a list of {_FORM}, got {got}")
        return []
    parsed = [_parse(item, labels) for item in items]
    wrong = [index for index, entry in enumerate(parsed) if entry is None]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        faults.append(f"{path}: entry {wrong[0]} is {str(items[wrong[0]])[:80]}{more}; expected {_FORM}")
    return [entry for entry in parsed if entry is not None]


def _parse(item: Any, labels: Sequence[str]) -> Entry | None:
    """An entry of either form, or None where it is of neither."""
    is_row = isinstance(item, list) and 2 <= len(item) <= 4 and all(type(x) is str and x for x in item)
    if not is_row:
        return None
    emotion = normalise_name(item[0]) if normalise_name(item[0]) in labels else item[0]
    second, *rest = (text.replace("\\", "/").removeprefix("./") for text in item[1:])
    is_path = "/" in second or PurePosixPath(second).suffix.lower() in IMAGE_SUFFIXES
    if is_path:
        return Entry(_image_id(emotion, second), emotion, second, rest[0]) if len(rest) == 1 else None
    annotation = rest[-1] if rest else f"annotation/{emotion}/{second}.json"
    image = rest[0] if len(rest) == 2 else f"image/{emotion}/{second}"
    return Entry(second, emotion, image, annotation)


def _image_id(emotion: str, path: str) -> str:
    """`awe_00001` for EmoSet's own names; the path itself where files are merely numbered per folder."""
    pure = PurePosixPath(path)
    if pure.stem.startswith(f"{emotion}_"):
        return pure.stem
    parts = pure.with_suffix("").parts
    return "_".join(parts[1:] if parts[0] == "image" and len(parts) > 1 else parts)


def _missing_emotions(root: Path, labels: Sequence[str], train: list[Entry]) -> Iterator[str]:
    counts = Counter(entry.emotion for entry in train)
    missing = [label for label in labels if not counts[label]]
    if missing:
        lost = ", ".join(missing)
        yield f"{root / 'train.json'}: no training image of {lost}; every emotion needs at least one"


def _with_names(lists: dict[str, list[Entry]]) -> tuple[dict[str, list[Entry]], list[Rejected]]:
    """Entries whose texts are UTF-8, and the refusals of the others."""
    named = {
        split: [e for e in entries if is_utf8("".join(filter(None, e)))] for split, entries in lists.items()
    }
    kept = {split: set(entries) for split, entries in named.items()}
    return named, [
        refuse_unnamed(entry.image, split)
        for split, entries in lists.items()
        for entry in entries
        if entry not in kept[split]
    ]


def _without_duplicates(lists: dict[str, list[Entry]]) -> tuple[dict[str, list[Entry]], tuple[Rejected, ...]]:
    first: dict[str, str] = {}
    kept: dict[str, list[Entry]] = {split: [] for split in SPLITS}
    duplicates = []
    for split in SPLITS:
        for entry in lists[split]:
            if entry.image_id in first:
                detail = f"image id {entry.image_id} is already taken in {first[entry.image_id]}.json"
                duplicates.append(Rejected(entry.image_id, entry.image, Reason.DUPLICATE_ID, detail, split))
            else:
                first[entry.image_id] = split
                kept[split].append(entry)
    return kept, tuple(duplicates)
