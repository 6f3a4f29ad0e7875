"""Which reader reads which kind of data set."""

from collections.abc import Callable, Mapping
from pathlib import Path

from uniemo_ray.config import DataConfig
from uniemo_ray.data.class_folders import ClassTable, read_class_folders
from uniemo_ray.data.emoset import EmoSetFolder
from uniemo_ray.data.emotionroi import read_emotionroi
from uniemo_ray.data.folder import DataFolder
from uniemo_ray.data.splits import LITERATURE
from uniemo_ray.data.twitter import read_twitter1, read_twitter2
from uniemo_ray.emotions import EKMAN, LABEL_SPACES, MIKELS, SENTIMENT, LabelSpace

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
    "sketch": lambda root, data: EmoSetFolder(root),
    "emoset": lambda root, data: EmoSetFolder(root),
    "fi": lambda root, data: read_class_folders(root, FI, seed=data.split_seed),
    "emotionroi": lambda root, data: read_emotionroi(root, seed=data.split_seed),
    "twitter1": lambda root, data: read_twitter1(root, agreement=data.agreement, seed=data.split_seed),
    "twitter2": lambda root, data: read_twitter2(root, seed=data.split_seed),
    "folders": lambda root, data: read_class_folders(root, plain(data.labels), seed=data.split_seed),
}
_SPACES = {"emotionroi": EKMAN, "twitter1": SENTIMENT, "twitter2": SENTIMENT}


def open_folder(root: str | Path, data: DataConfig) -> DataFolder:
    """Read the structure of a data folder; no image is opened.

    Raises:
        FolderError: with one line for each fault of the structure.
    """
    return _READERS[data.kind](root, data)


def label_space(data: DataConfig) -> LabelSpace:
    """The classes that a run tells apart: those of its data set, or their valence."""
    own = own_space(data)  # in any case, so that a step reads the same settings whatever their values
    return SENTIMENT if data.valence else own


def own_space(data: DataConfig) -> LabelSpace:
    """The classes of a kind of data set."""
    of_folders = LABEL_SPACES[data.labels]
    return of_folders if data.kind == "folders" else _SPACES.get(data.kind, MIKELS)


def plain(labels: str) -> ClassTable:
    """A set whose folders have the names of the labels themselves."""
    space = LABEL_SPACES[labels]
    return ClassTable("folders", space, {label: label for label in space.labels}, LITERATURE)
