"""Everything that is wrong with a data folder, file by file, before any training."""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice, starmap
from multiprocessing import get_context
from pathlib import Path

from uniemo_ray.config import SPLITS
from uniemo_ray.data.emoset import EmoSetFolder, FolderError
from uniemo_ray.data.samples import AttributeNames, Entry, Rejected, read_sample
from uniemo_ray.emotions import EMOTIONS

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
    """Entries per split file."""
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

    @property
    def is_usable(self) -> bool:
        """Whether a run could start with this folder."""
        return not self.faults


@dataclass(frozen=True)
class _Outcome:
    """What became of one chunk of entries."""

    split: str
    rejected: list[Rejected]
    emotions: Counter[str]
    with_scene: int
    with_object: int
    size: int


def check_folder(
    root: str | Path,
    *,
    max_pixels: int = 50_000_000,
    workers: int = 1,
    keep: int = 1000,
    on_rejected: Callable[[Rejected], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> FolderReport:
    """Open every image and every annotation of a folder in EmoSet's layout and name what is wrong.

    Memory stays bounded: an image lives only while it is checked and at most `keep` rejected entries
    are remembered; every one of them goes to `on_rejected` as it is found.

    Args:
        root: The folder.
        max_pixels: `data.max_pixels` of the run to come.
        workers: Processes that decode.
        keep: Length of the report's list of rejected entries.
        on_rejected: Called with each rejected entry, in the order of the split files.
        on_progress: Called with the numbers of entries done and of all.

    Returns:
        The report. A folder that cannot be read at all gives a report with `faults`, not an exception.
    """
    try:
        folder = EmoSetFolder(root)
    except FolderError as error:
        empty = dict.fromkeys(SPLITS, 0)
        return FolderReport(str(root), error.faults, (), empty, empty, {}, 0, 0, {}, ())
    tally = _Tally(keep, on_rejected)
    for rejected in folder.duplicates:
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
        self.emotions: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
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
        self.emotions[outcome.split].update(outcome.emotions)
        self.with_scene += outcome.with_scene
        self.with_object += outcome.with_object

    def report(self, folder: EmoSetFolder) -> FolderReport:
        train = {emotion: self.emotions["train"][emotion] for emotion in EMOTIONS}
        missing = [emotion for emotion, count in train.items() if not count]
        lost = f"{folder.root}: no usable training image of {', '.join(missing)}; each emotion needs one"
        doubled = Counter(rejected.split for rejected in folder.duplicates)
        return FolderReport(
            root=str(folder.root),
            faults=(lost,) if missing else (),
            notes=(*folder.notes, *attribute_notes(self.with_scene, self.with_object)),
            listed={split: len(folder.entries(split)) + doubled[split] for split in SPLITS},
            usable={split: self.emotions[split].total() for split in SPLITS},
            per_emotion=train,
            with_scene=self.with_scene,
            with_object=self.with_object,
            reasons=dict(sorted(self.reasons.items())),
            rejected=tuple(self.rejected),
        )


def attribute_notes(with_scene: int, with_object: int) -> list[str]:
    """What a data set without attributes means for training."""
    kinds = [kind for kind, count in (("scene", with_scene), ("object", with_object)) if not count]
    return [f"no image has a {kind}: stage 1 trains without the contrastive {kind} term" for kind in kinds]


def _outcomes(folder: EmoSetFolder, *, max_pixels: int, workers: int) -> Iterator[_Outcome]:
    check = partial(_check_chunk, folder.root, names=folder.names, max_pixels=max_pixels)
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
    root: Path, split: str, entries: list[Entry], *, names: AttributeNames, max_pixels: int
) -> _Outcome:
    rejected: list[Rejected] = []
    emotions: Counter[str] = Counter()
    with_scene = with_object = 0
    for entry in entries:
        sample = read_sample(root, entry, max_pixels=max_pixels, names=names)
        if isinstance(sample, Rejected):
            rejected.append(sample._replace(split=split))
            continue
        emotions[sample.emotion] += 1
        with_scene += sample.scene is not None
        with_object += bool(sample.objects)
    return _Outcome(split, rejected, emotions, with_scene, with_object, len(entries))
