"""Everything that is wrong with a data folder, file by file, before any training."""

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice, starmap
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from uniemo_ray.config import MAX_PIXELS, SPLITS
from uniemo_ray.data.duplicates import CONTENT, Duplicate, describe, find_duplicates
from uniemo_ray.data.emoset import EmoSetFolder
from uniemo_ray.data.folder import DataFolder, FolderError
from uniemo_ray.data.samples import AttributeNames, Entry, Rejected, Sample, read_sample

_CHUNK = 64


@dataclass(frozen=True)
class FolderReport:
    """Result of `check_folder`."""

    root: str
    faults: tuple[str, ...]
    """Why the folder cannot be used at all; one line each."""
    notes: tuple[str, ...]
    """What a user should know and what is no fault."""
    listed: dict[str, int]
    """Entries per split."""
    usable: dict[str, int]
    """Samples per split."""
    per_emotion: dict[str, int]
    """Usable training images per emotion."""
    with_scene: int
    """Usable images, over all splits, that carry a scene."""
    with_object: int
    """Usable images, over all splits, that carry an object."""
    reasons: dict[str, int]
    """Number of rejected entries per reason."""
    rejected: tuple[Rejected, ...]
    """The first rejected entries, in the order of the split files."""
    duplicates: tuple[Duplicate, ...] = ()
    """Usable images with the same bytes."""

    @property
    def is_usable(self) -> bool:
        """Whether a run could start with this folder."""
        return not self.faults


@dataclass(frozen=True)
class _Outcome:
    """What became of one chunk of entries."""

    split: str
    rejected: list[Rejected]
    content: pa.Table
    """Schema `CONTENT`."""
    with_scene: int
    with_object: int
    size: int


def check_folder(
    root: str | Path,
    *,
    reader: Callable[[str | Path], DataFolder] = EmoSetFolder,
    max_pixels: int = MAX_PIXELS,
    workers: int = 1,
    keep: int = 1000,
    on_rejected: Callable[[Rejected], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> FolderReport:
    """Open every image and every annotation of a data folder and name what is wrong.

    An image lives only while it is checked; what stays is a few hundred bytes for each (its entry and its
    sha256). At most `keep` rejected entries are remembered; every one goes to `on_rejected` as it is found.

    Args:
        root: The folder.
        reader: Reads its structure.
        max_pixels: `data.max_pixels` of the run to come.
        workers: Processes that decode.
        keep: Length of the report's list of rejected entries.
        on_rejected: Called with each rejected entry, in the order of the split files.
        on_progress: Called with the numbers of entries done and of all.

    Returns:
        The report. A folder that cannot be read at all gives a report with `faults`, not an exception.
    """
    try:
        folder = reader(root)
    except FolderError as error:
        empty = dict.fromkeys(SPLITS, 0)
        return FolderReport(str(root), error.faults, (), empty, empty, {}, 0, 0, {}, ())
    tally = _Tally(keep, on_rejected)
    for rejected in folder.refused:
        tally.reject(rejected)
    total = sum(len(folder.entries(split)) for split in SPLITS)
    for outcome in _outcomes(folder, max_pixels=max_pixels, workers=workers):
        tally.add(outcome)
        if on_progress:
            on_progress(tally.done, total)
    return tally.report(folder)


class _Tally:
    """Counts over all chunks."""

    def __init__(self, keep: int, on_rejected: Callable[[Rejected], None] | None) -> None:
        self.keep, self.on_rejected = keep, on_rejected
        self.rejected: list[Rejected] = []
        self.reasons: Counter[str] = Counter()
        self.content: list[pa.Table] = []
        self.with_scene = self.with_object = self.done = 0

    def reject(self, rejected: Rejected) -> None:
        self.reasons[str(rejected.reason)] += 1
        if len(self.rejected) < self.keep:
            self.rejected.append(rejected)
        if self.on_rejected:
            self.on_rejected(rejected)

    def add(self, outcome: _Outcome) -> None:
        self.done += outcome.size
        for rejected in outcome.rejected:
            self.reject(rejected)
        self.content.append(outcome.content)
        self.with_scene += outcome.with_scene
        self.with_object += outcome.with_object

    def report(self, folder: DataFolder) -> FolderReport:
        content = pa.concat_tables([CONTENT.empty_table(), *self.content])
        usable = Counter(content["split"].to_pylist())
        train = Counter(content.filter(pc.field("split") == "train")["emotion"].to_pylist())
        missing = [label for label in folder.space.labels if not train[label]]
        lost = f"{folder.root}: no usable training image of {', '.join(missing)}; each emotion needs one"
        refused = Counter(rejected.split for rejected in folder.refused)
        duplicates = find_duplicates(content)
        notes = (*folder.notes, *attribute_notes(self.with_scene, self.with_object), *describe(duplicates))
        return FolderReport(
            root=str(folder.root),
            faults=(lost,) if missing else (),
            notes=notes,
            listed={split: len(folder.entries(split)) + refused[split] for split in SPLITS},
            usable={split: usable[split] for split in SPLITS},
            per_emotion={label: train[label] for label in folder.space.labels},
            with_scene=self.with_scene,
            with_object=self.with_object,
            reasons=dict(sorted(self.reasons.items())),
            rejected=tuple(self.rejected),
            duplicates=duplicates,
        )


def attribute_notes(with_scene: int, with_object: int) -> list[str]:
    """What a data set without attributes means for training."""
    kinds = [kind for kind, count in (("scene", with_scene), ("object", with_object)) if not count]
    return [f"no image has a {kind}: stage 1 trains without the contrastive {kind} term" for kind in kinds]


def _outcomes(folder: DataFolder, *, max_pixels: int, workers: int) -> Iterator[_Outcome]:
    labels = folder.space.labels
    check = partial(_check_chunk, folder.root, names=folder.names, labels=labels, max_pixels=max_pixels)
    chunks = (
        (split, folder.entries(split)[start : start + _CHUNK])
        for split in SPLITS
        for start in range(0, len(folder.entries(split)), _CHUNK)
    )
    if workers <= 1:
        yield from starmap(check, chunks)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        # A short queue instead of `pool.map`, which would hold every chunk of the folder at once.
        waiting = deque(pool.submit(check, *chunk) for chunk in islice(chunks, 2 * workers))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(check, *chunk) for chunk in islice(chunks, 1))


def _check_chunk(
    root: Path,
    split: str,
    entries: list[Entry],
    *,
    names: AttributeNames,
    labels: Collection[str],
    max_pixels: int,
) -> _Outcome:
    rejected: list[Rejected] = []
    rows: list[dict[str, str]] = []
    with_scene = with_object = 0
    for entry in entries:
        sample = read_sample(root, entry, max_pixels=max_pixels, names=names, labels=labels)
        if isinstance(sample, Rejected):
            rejected.append(sample._replace(split=split))
            continue
        rows.append({"split": split, **_content(sample)})
        with_scene += sample.scene is not None
        with_object += bool(sample.objects)
    content = pa.Table.from_pylist(rows, schema=CONTENT)
    return _Outcome(split, rejected, content, with_scene, with_object, len(entries))


def _content(sample: Sample) -> dict[str, str]:
    return {"image_id": sample.image_id, "emotion": sample.emotion, "sha256": sample.sha256}
