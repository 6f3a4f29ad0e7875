"""From the rows of label and split files to entries; a bad row is refused by name and stops nothing."""

from collections.abc import Iterable
from typing import NamedTuple

from uniemo_ray.data.class_folders import ClassTable
from uniemo_ray.data.samples import Entry, Reason, Rejected


class LabelRow(NamedTuple):
    """What a file says of one image."""

    image_id: str
    image: str
    """Path relative to the data folder."""
    label: str
    """Label exactly as it is written in the file."""
    where: str
    """File and line, for people."""
    split: str = ""


class Collected(NamedTuple):
    """Rows of all files, sorted into entries and refusals."""

    entries: dict[str, list[Entry]]
    """By the rows' splits."""
    refused: list[Rejected]


def collect(rows: Iterable[LabelRow | Rejected], table: ClassTable) -> Collected:
    """Entries of the rows in their order; what was refused before stays refused."""
    entries: dict[str, list[Entry]] = {}
    refused: list[Rejected] = []
    first: dict[str, str] = {}
    for row in rows:
        entry = row if isinstance(row, Rejected) else _entry(row, table, first)
        if isinstance(entry, Rejected):
            refused.append(entry)
        elif isinstance(row, LabelRow):
            entries.setdefault(row.split, []).append(entry)
    return Collected(entries, refused)


def malformed(where: str, text: str, *, expected: str, split: str = "") -> Rejected:
    """The refusal of a row that cannot be read."""
    detail = f"expected {expected}, got {text[:80]!r}"
    return Rejected(where, where, Reason.LIST_MALFORMED, detail, split)


def note_unlisted(unlisted: Iterable[str], *, where: str) -> list[str]:
    """A line about images that no row names, if there are any."""
    names = sorted(unlisted)
    return (
        [f"{len(names)} images are not listed in {where} and are not used ({names[0]} for example)"]
        if names
        else []
    )


def _entry(row: LabelRow, table: ClassTable, first: dict[str, str]) -> Entry | Rejected:
    label = table.label(row.label)
    if label is None:
        detail = f"{row.where}: {row.label!r} is no class of the set"
        return Rejected(row.image_id, row.image, Reason.UNKNOWN_LABEL, detail, row.split)
    if row.image_id in first:
        detail = f"{row.where}: {row.image_id} is already listed in {first[row.image_id]}"
        return Rejected(row.image_id, row.image, Reason.DUPLICATE_ID, detail, row.split)
    first[row.image_id] = row.where
    return Entry(row.image_id, label, row.image, None)
