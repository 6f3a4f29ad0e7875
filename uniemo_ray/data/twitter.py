"""Readers of Twitter I (You et al., AAAI 2015) and Twitter II (Borth et al., ACM MM 2013): two classes.

Twitter I, 1,269 images with the votes of five raters; its subsets are the images on which at least three,
four or all five agree (1,269, 1,116 and 882):

    root/Agg_AMT_Candidates/1005887100_428632757510471681_BfLPOMjCYAADZ0V.jpg     or root/images/
    root/five_agrees.txt                lines `IMAGE 1` (positive) or `IMAGE 0` (negative); also as
                                        twitter_five_agrees.txt, five_agree.txt, and in root/ground_truth/
    root/amt_result.csv                 or the votes: image, votes, and a positive and a negative column

Twitter II, 603 images in folders of topics:

    root/TOPIC/12.jpg
    root/groundTruthLabel.txt           tab-separated, the label (positive or negative) in the second column

Both are often passed on as one folder per class, which is read too. Splits are drawn. Label files may be
spreadsheets' exports: fields between tabs, semicolons or commas, in quotes, numbers such as `5.0`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from uniemo_ray.data.class_folders import ClassTable, read_class_folders
from uniemo_ray.data.dialect import Row, read_rows
from uniemo_ray.data.folder import FolderError, ListedFolder
from uniemo_ray.data.label_lists import LabelRow, collect, malformed, note_unlisted
from uniemo_ray.data.listing import (
    first_file,
    list_files,
    note_loops,
    read_lines,
    refuse_unnamed,
    require_folder,
)
from uniemo_ray.data.samples import Reason, Rejected
from uniemo_ray.data.splits import FIFTH, stratify
from uniemo_ray.emotions import SENTIMENT

CLASSES = {
    "positive": "positive",
    "negative": "negative",
    "pos": "positive",
    "neg": "negative",
    "1": "positive",
    "0": "negative",
}
IMAGE_FOLDERS = ("Agg_AMT_Candidates", "images")
AGREEMENT_WORDS = {3: "three", 4: "four", 5: "five"}
VOTES_FILE = "amt_result.csv"
TRUTH_FILE = "groundTruthLabel.txt"
TWITTER1 = ClassTable("twitter1", SENTIMENT, CLASSES, FIFTH, f"three_agrees.txt or {VOTES_FILE}")
TWITTER2 = ClassTable("twitter2", SENTIMENT, CLASSES, FIFTH, TRUTH_FILE)


class _Votes(NamedTuple):
    """Columns of the votes file."""

    positive: int
    negative: int


def read_twitter1(root: str | Path, *, agreement: int, seed: int) -> ListedFolder:
    """List the images on whose label at least `agreement` of five raters agree.

    Args:
        root: Data folder.
        agreement: 3, 4 or 5.
        seed: Of the drawn splits.

    Raises:
        FolderError: the asked subset cannot be told, or a class has no training image.
    """
    folder = require_folder(root)
    images = next((folder / name for name in IMAGE_FOLDERS if (folder / name).is_dir()), folder)
    file = _agreement_file(folder, agreement)
    votes = first_file((folder, folder / "ground_truth"), [VOTES_FILE])
    if file:
        rows = list(_labelled(file, folder, images))
    elif votes:
        rows = list(_voted(votes, folder, images, agreement=agreement))
    else:
        return _from_folders(folder, agreement=agreement, seed=seed)
    return _listed(folder, images, rows, TWITTER1, seed=seed, where=(file or votes or folder).name)


def _agreement_file(folder: Path, agreement: int) -> Path | None:
    places = (folder, folder / "ground_truth")
    found = {n: first_file(places, _names(word)) for n, word in AGREEMENT_WORDS.items()}
    others = [str(n) for n, file in found.items() if file]
    if found[agreement] is None and others and not first_file(places, [VOTES_FILE]):
        asked = f"data.agreement is {agreement}, but {folder} has label files for {' and '.join(others)} only"
        raise FolderError([f"{asked}: set data.agreement={others[0]}"])
    return found[agreement]


def _names(word: str) -> list[str]:
    return [f"{prefix}{word}_{ending}.txt" for prefix in ("", "twitter_") for ending in ("agrees", "agree")]


def _from_folders(folder: Path, *, agreement: int, seed: int) -> ListedFolder:
    if agreement != min(AGREEMENT_WORDS):
        wanted = f"{AGREEMENT_WORDS[agreement]}_agrees.txt or {VOTES_FILE}"
        raise FolderError([f"{folder}: data.agreement={agreement} needs {wanted}, which is not there"])
    return read_class_folders(folder, TWITTER1, seed=seed)


def _labelled(file: Path, folder: Path, images: Path) -> Iterator[LabelRow | Rejected]:
    rows = read_rows(read_lines(file), is_good=_ends_in_a_label, by_space=True)
    if rows and not _ends_in_a_label(rows[0].fields) and any(_ends_in_a_label(row.fields) for row in rows):
        rows = rows[1:] if _is_heading(rows[0]) else rows
    for row in rows:
        where = f"{file.name}:{row.number}"
        if len(row.fields) == 2:
            yield _row(folder, images, row.fields[0], row.fields[1], where)
        else:
            yield malformed(where, " ".join(row.fields), expected="IMAGE LABEL")


def _ends_in_a_label(fields: list[str]) -> bool:
    return len(fields) == 2 and TWITTER1.label(fields[1]) is not None


def _is_heading(row: Row) -> bool:
    return len(row.fields) == 2 and not PurePosixPath(row.fields[0]).suffix


def _voted(file: Path, folder: Path, images: Path, *, agreement: int) -> Iterator[LabelRow | Rejected]:
    rows = read_rows(read_lines(file), is_good=lambda fields: len(fields) > 2)
    columns = _vote_columns(file, rows[0].fields if rows else [])
    for row in rows[1:]:
        where = f"{file.name}:{row.number}"
        counts = [row.fields[at] if at < len(row.fields) else "" for at in columns]
        if not all(count.isdigit() for count in counts):
            yield malformed(where, ",".join(row.fields), expected="an image and two numbers of votes")
            continue
        positive, negative = map(int, counts)
        if positive != negative and max(positive, negative) >= agreement:
            label = "positive" if positive > negative else "negative"
            yield _row(folder, images, row.fields[0], label, where)


def _vote_columns(file: Path, header: list[str]) -> _Votes:
    """Columns by their headings: their order is not the same in all copies."""
    found = [[at for at, name in enumerate(header) if part in name.lower()] for part in ("pos", "neg")]
    if not all(len(columns) == 1 for columns in found):
        raise FolderError(
            [f"{file}: the first line must name a positive and a negative column, got {header}"]
        )
    return _Votes(*(columns[0] for columns in found))


def _row(folder: Path, images: Path, image: str, label: str, where: str) -> LabelRow:
    name = PurePosixPath(image.replace("\\", "/")).name
    return LabelRow(name, (images / name).relative_to(folder).as_posix(), label, where)


def read_twitter2(root: str | Path, *, seed: int) -> ListedFolder:
    """List the images by their label file, or by class folders.

    A row of the label file means the image that its first column names, with or without file ending. Where
    that column names no image at all, row n means image n.

    Args:
        root: Data folder.
        seed: Of the drawn splits.

    Raises:
        FolderError: a class without training images.
    """
    folder = require_folder(root)
    truth = first_file((folder,), [TRUTH_FILE])
    if truth is None:
        return read_class_folders(folder, TWITTER2, seed=seed)
    rows, note = _numbered(truth, folder)
    listed = _listed(folder, folder, rows, TWITTER2, seed=seed, where=truth.name)
    return replace(listed, notes=(note, *listed.notes))


def _numbered(file: Path, folder: Path) -> tuple[list[LabelRow | Rejected], str]:
    """Rows of the label file, and how they name their images."""
    by_name: dict[str, list[str]] = {}
    for path in list_files(folder).images:
        for name in (PurePosixPath(path).name, PurePosixPath(path).stem):
            by_name.setdefault(name, []).append(path)
    rows = read_rows(read_lines(file), is_good=_has_a_label_second)
    lines = [(f"{file.name}:{row.number}", row.fields) for row in rows]
    if lines and not _has_a_label_second(lines[0][1]):
        lines = lines[1:]  # the heading
    if any(fields[0] in by_name for _, fields in lines):
        named = [(fields[0], fields, where) for where, fields in lines]
        note = f"{file.name}: the first column names the images"
    else:
        named = [(str(number), fields, where) for number, (where, fields) in enumerate(lines, start=1)]
        note = f"{file.name}: row n is taken for image n, because the first column names no image"
    return [_truth(name, fields, where, by_name) for name, fields, where in named], note


def _has_a_label_second(fields: list[str]) -> bool:
    return len(fields) > 1 and TWITTER2.label(fields[1]) is not None


def _truth(name: str, fields: list[str], where: str, by_name: Mapping[str, list[str]]) -> LabelRow | Rejected:
    if len(fields) < 2:
        return malformed(where, "\t".join(fields), expected="IMAGE, tab, LABEL")
    found = by_name.get(name, [])
    if len(found) == 1:
        return LabelRow(found[0], found[0], fields[1], where)
    detail = f"{where}: {' and '.join(found) or 'no image'} has the name {name}"
    return Rejected(name, where, Reason.LIST_MALFORMED if found else Reason.IMAGE_MISSING, detail)


def _listed(
    folder: Path, images: Path, rows: list[LabelRow | Rejected], table: ClassTable, *, seed: int, where: str
) -> ListedFolder:
    collected = collect(rows, table)
    by_split = stratify(collected.entries.get("", []), table.shares, seed=seed)
    files, at = list_files(images), images.relative_to(folder)
    listed = {row.image for row in rows if isinstance(row, LabelRow)}
    unlisted = {(at / image).as_posix() for image in files.images} - listed
    notes = [f"the set has no splits: they were drawn with data.split_seed={seed}"]
    if where == VOTES_FILE:
        where = f"{where} with enough agreement"
    notes += [*note_unlisted(unlisted, where=where), *note_loops(files.loops)]
    refused = [*collected.refused, *(refuse_unnamed((at / image).as_posix()) for image in files.unnamed)]
    return ListedFolder(folder, table.space, by_split, tuple(refused), tuple(notes))
