"""Which reader reads which kind of data set."""

from collections.abc import Callable, Mapping
from pathlib import Path

from uniemo_ray.config import SPLITS, DataConfig
from uniemo_ray.data.bucket import is_bucket, outline
from uniemo_ray.data.class_folders import SPLIT_NAMES, ClassTable, read_class_folders
from uniemo_ray.data.emoset import EmoSetFolder
from uniemo_ray.data.emotionroi import read_emotionroi
from uniemo_ray.data.folder import DataFolder, FolderError, ListedFolder
from uniemo_ray.data.splits import FOLDS, LITERATURE, split_by_fold
from uniemo_ray.data.twitter import read_twitter1, read_twitter2
from uniemo_ray.emotions import EKMAN, LABEL_SPACES, MIKELS, OWN, SENTIMENT, LabelSpace, stated_space

FI = ClassTable(
    "fi",
    MIKELS,
    {
        "amusement": "amusement",
        "anger": "anger",
        "awe": "awe",
        "contentment": "contentment",
        "disgust": "disgust",
        "excitement": "excitement",
        "fear": "fear",
        "sadness": "sadness",
    },
    LITERATURE,
)
"""FI (You et al., AAAI 2016): 23,308 images in one folder per emotion, without splits."""

_READERS: Mapping[str, Callable[[str | Path, DataConfig], DataFolder]] = {
    "sketch": lambda root, data: EmoSetFolder(root, named_space(data)),
    "emoset": lambda root, data: EmoSetFolder(root),
    "fi": lambda root, data: read_class_folders(root, FI, seed=data.split_seed),
    "emotionroi": lambda root, data: read_emotionroi(root, seed=data.split_seed),
    "twitter1": lambda root, data: read_twitter1(root, agreement=data.agreement, seed=data.split_seed),
    "twitter2": lambda root, data: read_twitter2(root, seed=data.split_seed),
    "folders": lambda root, data: read_class_folders(root, plain(named_space(data)), seed=data.split_seed),
}
SEED_SETTING = "data.split_seed="
"""In every note about splits that were drawn."""
_SPACES = {"emotionroi": EKMAN, "twitter1": SENTIMENT, "twitter2": SENTIMENT}


def open_folder(root: str | Path, data: DataConfig) -> DataFolder:
    """Read the structure of a data folder, on this disk or in a bucket; no image is opened.

    Raises:
        FolderError: with one line for each fault of the structure.
    """
    if is_bucket(root):
        local = outline(str(root))
        try:
            return open_folder(local, data)
        except FolderError as error:
            raise FolderError([line.replace(str(local), str(root)) for line in error.faults]) from None
    folder = _READERS[data.kind](root, data)
    return folder if data.fold is None else with_fold(folder, fold=data.fold, seed=data.split_seed)


def with_fold(folder: DataFolder, *, fold: int, seed: int) -> ListedFolder:
    """A data set that one of five folds tests, whatever its own splits are.

    Raises:
        FolderError: a class without training images, or a split without images.
    """
    every = [entry for split in SPLITS for entry in folder.entries(split)]
    by_split = split_by_fold(every, fold=fold, seed=seed)
    sizes = ", ".join(f"{len(by_split[split])} {split}" for split in SPLITS)
    note = f"fold {fold} of 0 to {FOLDS - 1} tests: {sizes} images were drawn with {SEED_SETTING}{seed}"
    # What was said of the splits that were drawn before is no longer so.
    notes = [text for text in folder.notes if SEED_SETTING not in text]
    refused = tuple(folder.refused)
    return ListedFolder(folder.root, folder.space, by_split, refused, (note, *notes), folder.names)


def label_space(data: DataConfig) -> LabelSpace:
    """The classes that a run tells apart: those of its data set, or their valence."""
    own = own_space(data)  # in any case, so that a step reads the same settings whatever their values
    return SENTIMENT if data.valence else own


def own_space(data: DataConfig) -> LabelSpace:
    """The classes of a kind of data set."""
    named = named_space(data)
    return named if data.kind in ("folders", "sketch") else _SPACES.get(data.kind, MIKELS)


def named_space(data: DataConfig) -> LabelSpace:
    """The classes that `data.labels` names."""
    labels, valences = data.labels, data.valences  # both in any case, as in `label_space`
    return LABEL_SPACES[labels] if isinstance(labels, str) else stated_space(labels, valences)


def plain(space: LabelSpace) -> ClassTable:
    """A set whose folders have the names of the labels themselves; with own labels, it has no other folders.

    Raises:
        FolderError: an own label that a folder of a split may have as its name.
    """
    is_own = space.name == OWN
    if taken := [label for label in space.labels if is_own and label in SPLIT_NAMES]:
        raise FolderError([f"the label {taken[0]!r} is the name of a split's folder: take another"])
    classes = {label: label for label in space.labels}
    return ClassTable("folders", space, classes, LITERATURE, is_strict=is_own)
