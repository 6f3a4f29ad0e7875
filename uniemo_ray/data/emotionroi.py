"""Reader of EmotionROI (Peng et al., ICIP 2016): 1,980 images of six emotions.

    root/images/joy/317.jpg
    root/training_testing_split/training.txt    lines such as `joy/317.jpg`; also beside images/
    root/training_testing_split/testing.txt
    root/ground_truth/joy/317.jpg               stimuli maps: not read

The official lists have no validation part, so it is drawn from the training list. Without lists the folder
is read as one folder per class.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from uniemo_ray.data.class_folders import (
    ClassTable,
    class_folders,
    find_base,
    read_class_folders,
    with_validation,
)
from uniemo_ray.data.dialect import plain_field
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
from uniemo_ray.data.samples import Rejected
from uniemo_ray.data.splits import LITERATURE
from uniemo_ray.emotions import EKMAN

EMOTIONROI = ClassTable(
    "emotionroi",
    EKMAN,
    {
        "anger": "anger",
        "disgust": "disgust",
        "fear": "fear",
        "joy": "joy",
        "sadness": "sadness",
        "surprise": "surprise",
    },
    LITERATURE,
)
LIST_FOLDER = "training_testing_split"
LISTS = {"train": "training.txt", "test": "testing.txt"}


def read_emotionroi(root: str | Path, *, seed: int) -> ListedFolder:
    """List the data set by its official lists, or by its class folders.

    Args:
        root: Data folder.
        seed: Of the drawn splits.

    Raises:
        FolderError: one list without the other, or a class without training images.
    """
    folder = require_folder(root)
    lists = {split: first_file((folder / LIST_FOLDER, folder), [name]) for split, name in LISTS.items()}
    if not any(lists.values()):
        return read_class_folders(folder, EMOTIONROI, seed=seed)
    lost = [LISTS[split] for split, file in lists.items() if file is None]
    if lost:
        raise FolderError([f"{folder}: {lost[0]} is missing beside the other split list"])
    base = find_base(folder, EMOTIONROI)
    places = {label: p.relative_to(folder).as_posix() for label, p in class_folders(base, EMOTIONROI).items()}
    rows = [row for split, file in lists.items() if file for row in _rows(file, split, places)]
    collected = collect(rows, EMOTIONROI)
    parts = {split: collected.entries.get(split, []) for split in LISTS}
    by_split, note = with_validation(parts, seed=seed)
    listed = {row.image for row in rows if isinstance(row, LabelRow)}
    files = {place: list_files(folder / place) for place in places.values()}
    there = {f"{place}/{image}" for place, found in files.items() for image in found.images}
    unnamed = [
        refuse_unnamed(f"{place}/{image}") for place, found in files.items() for image in found.unnamed
    ]
    loops = [f"{place}/{link}" for place, found in files.items() for link in found.loops]
    notes = (*note, *note_loops(loops), *note_unlisted(there - listed, where=" or ".join(LISTS.values())))
    return ListedFolder(folder, EKMAN, by_split, refused=(*collected.refused, *unnamed), notes=notes)


def _rows(file: Path, split: str, places: Mapping[str, str]) -> Iterator[LabelRow | Rejected]:
    for number, line in enumerate(read_lines(file), start=1):
        if not line:
            continue
        where = f"{file.name}:{number}"
        name, image = _class_and_image(line)
        if not name or not image:
            yield malformed(where, line, expected="class/image.jpg", split=split)
            continue
        label = EMOTIONROI.label(name)
        place = places.get(label or name, name)
        yield LabelRow(f"{label or name}/{image}", f"{place}/{image}", name, where, split)


def _class_and_image(line: str) -> tuple[str, str]:
    """Of `joy/317.jpg`, or of the fields `joy;317.jpg` of a spreadsheet; empty where there are none."""
    fields = [plain_field(field) for field in re.split(r"[;,\t]", line)]
    path = next((field for field in fields if "/" in field or "\\" in field), "/".join(fields[:2]))
    parts = path.replace("\\", "/").split("/")
    return (parts[-2], parts[-1]) if len(parts) > 1 else ("", "")
