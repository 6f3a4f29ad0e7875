"""What every reader hands out: a data folder whose structure was checked; no image has been opened yet."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from uniemo_ray.config import SPLITS
from uniemo_ray.data.samples import ANY_NAMES, AttributeNames, Entry, Rejected
from uniemo_ray.emotions import LabelSpace


class FolderError(ValueError):
    """A folder that cannot be read at all; `faults` has one line per fault."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


class DataFolder(Protocol):
    """A data set on disk as ingest and check see it."""

    @property
    def root(self) -> Path:
        """The folder; all paths of entries are relative to it."""
        ...

    @property
    def space(self) -> LabelSpace:
        """The classes of the data set."""
        ...

    @property
    def names(self) -> AttributeNames:
        """Attributes that the data set lists; empty where it lists none."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What a user should know and what is no fault."""
        ...

    @property
    def refused(self) -> Sequence[Rejected]:
        """What the folder holds or lists and what cannot become an entry, by name."""
        ...

    def entries(self, split: str) -> list[Entry]:
        """Entries of a split, each image id once over all splits."""
        ...


@dataclass(frozen=True)
class ListedFolder:
    """A data set without attributes, read into memory: a few hundred bytes per image."""

    root: Path
    space: LabelSpace
    by_split: Mapping[str, list[Entry]]
    refused: tuple[Rejected, ...] = ()
    notes: tuple[str, ...] = ()
    names: AttributeNames = ANY_NAMES

    def __post_init__(self) -> None:
        """Refuse a data set that lacks training images of a class, or all images of a split.

        Raises:
            FolderError: naming the classes or the split.
        """
        empty = [split for split in SPLITS if not self.by_split[split]]
        if empty:
            where = f"{self.root}: no image for the split {' and '.join(empty)}"
            raise FolderError([f"{where}; a class is split from three images on{self._refusals()}"])
        found = Counter(entry.emotion for entry in self.by_split["train"])
        missing = [label for label in self.space.labels if not found[label]]
        if missing:
            lost = ", ".join(missing)
            where = f"{self.root}: no training image of {lost}"
            raise FolderError([f"{where}; every class needs at least one{self._refusals()}"])

    def _refusals(self) -> str:
        """What was refused: it may be why something is missing."""
        if not self.refused:
            return ""
        first = self.refused[0]
        return f" ({len(self.refused)} were refused, the first is {first.path}: {first.detail})"

    def entries(self, split: str) -> list[Entry]:
        """Entries of a split, sorted by image id."""
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
        return self.by_split[split]
