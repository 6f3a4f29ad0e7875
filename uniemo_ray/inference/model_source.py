"""Where a model folder is, and what it says of itself before its weights are read."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from uniemo_ray.addresses import locate
from uniemo_ray.emotions import LabelSpace, find_space
from uniemo_ray.inference.checksums import CHECKSUMS, CONFIG, read_config, stated_files
from uniemo_ray.shipped import SHIPPED, SHIPPED_FOLDER
from uniemo_ray.store.filesystem import open_store


def locate_model(name: str) -> str:
    """The full address of a model folder that the user has named, or the name of the shipped model."""
    return name if name == SHIPPED else locate(name)


def fetch_folder(
    source: str | Path, *, names: Sequence[str] = ()
) -> tuple[Path, "tempfile.TemporaryDirectory[str] | None"]:
    """A model folder on this machine, and what keeps it alive where it was downloaded.

    Args:
        source: local path, `s3://`, or `tiny` for the one that comes with the package.
        names: download these files alone; by default all.

    Raises:
        ValueError: there is no model folder.
    """
    if str(source) == SHIPPED:
        return SHIPPED_FOLDER, None
    store = open_store(str(source))
    local = store.local_path_or_none()
    if local is not None:
        return local, None
    if not store.exists(CONFIG):
        raise ValueError(
            f"{source} is no model folder: it has no {CONFIG}, give one written by save_pretrained"
        )
    temporary = tempfile.TemporaryDirectory(prefix="uniemo-model-")
    for name in names:
        (Path(temporary.name) / name).write_bytes(store.read_bytes(name))
    if not names:
        store.download_dir("", Path(temporary.name))
    return Path(temporary.name), temporary


def describe_model(source: str | Path) -> tuple[LabelSpace, str]:
    """The classes that a model folder tells apart and its fingerprint, from its two JSON files.

    Raises:
        ValueError: no model folder, or one with classes of no label space.
    """
    folder, temporary = fetch_folder(source, names=(CONFIG, CHECKSUMS))
    try:
        return read_labels(folder), stated_files(folder)[1]
    finally:
        if temporary is not None:
            temporary.cleanup()


def read_labels(folder: Path) -> LabelSpace:
    """The classes that a local model folder tells apart, from `config.json` alone.

    Raises:
        ValueError: no model folder, or one with classes of no label space.
    """
    listed = read_config(folder).get("emotions", ())
    try:
        return find_space(listed)
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from None
