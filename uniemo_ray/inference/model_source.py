"""Where a model folder is, and what it says of itself before its weights are read."""

import tempfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

from uniemo_ray.addresses import locate
from uniemo_ray.emotions import LabelSpace, find_space, stated_space
from uniemo_ray.inference.checksums import (
    CHECKSUMS,
    CONFIG,
    DIFFUSION,
    VALENCES,
    read_config,
    stated_files,
    verify,
)
from uniemo_ray.inference.model_cache import CachedFolder, cached_folder
from uniemo_ray.inference.provenance import sha256_hex
from uniemo_ray.scratch import scratch_folder
from uniemo_ray.shipped import SHIPPED, SHIPPED_FOLDER
from uniemo_ray.store.base import Store
from uniemo_ray.store.filesystem import open_store


def locate_model(name: str) -> str:
    """The full address of a model folder that the user has named, or the name of the shipped model."""
    return name if name == SHIPPED else locate(name)


class ModelFolder(NamedTuple):
    """A model folder on this machine."""

    path: Path
    fingerprint: str
    hold: CachedFolder | None = None
    """Keeps a copy of a folder in storage; None for a folder of the user's own."""


def fetch_folder(source: str | Path, *, with_diffusion: bool = True) -> ModelFolder:
    """A model folder on this machine, whole and with the content that its checksums state.

    One in storage is copied and checked once for all processes of the machine.

    Args:
        source: local path, `s3://`, or `tiny` for the one that comes with the package.
        with_diffusion: whether the diffusion model is needed, which is most of the bytes.

    Raises:
        ValueError: there is no model folder, or a file is missing, damaged or changed.
    """
    if str(source) == SHIPPED:
        return ModelFolder(SHIPPED_FOLDER, verify(SHIPPED_FOLDER))
    store = open_store(str(source))
    local = store.local_path_or_none()
    if local is not None:
        return ModelFolder(local, verify(local))
    _check_present(store, str(source))
    stated = store.read_bytes(CHECKSUMS) if store.exists(CHECKSUMS) else b""
    name = sha256_hex(stated + b"%d" % with_diffusion)[:32]
    found = cached_folder(name, partial(_copy, store, with_diffusion=with_diffusion))
    return ModelFolder(found.path, stated_files(found.path)[1], found)


def _copy(store: Store, target: Path, *, with_diffusion: bool) -> None:
    """Copy a model folder out of storage and check what has arrived."""
    target.mkdir()
    skipped = () if with_diffusion else (DIFFUSION,)
    for key in store.iterate():
        if not key.startswith(tuple(f"{part}/" for part in skipped)):
            (target / key).parent.mkdir(parents=True, exist_ok=True)
            store.get_file(key, target / key)
    verify(target, without=skipped)


def _check_present(store: Store, source: str) -> None:
    if not store.exists(CONFIG):
        raise ValueError(
            f"{source} is no model folder: it has no {CONFIG}, give one written by save_pretrained"
        )


def describe_model(source: str | Path) -> tuple[LabelSpace, str]:
    """The classes that a model folder tells apart and its fingerprint, from its two JSON files.

    Raises:
        ValueError: no model folder, or one with classes of no label space.
    """
    if str(source) == SHIPPED:
        return read_labels(SHIPPED_FOLDER), stated_files(SHIPPED_FOLDER)[1]
    store = open_store(str(source))
    local = store.local_path_or_none()
    if local is not None:
        return read_labels(local), stated_files(local)[1]
    _check_present(store, str(source))
    with tempfile.TemporaryDirectory(prefix="uniemo-model-", dir=scratch_folder()) as scratch:
        folder = Path(scratch)
        for name in (CONFIG, CHECKSUMS):
            (folder / name).write_bytes(store.read_bytes(name))
        return read_labels(folder), stated_files(folder)[1]


def read_labels(folder: Path) -> LabelSpace:
    """The classes that a local model folder tells apart, from `config.json` alone.

    Raises:
        ValueError: no model folder, or one with classes of no label space.
    """
    header = read_config(folder)
    listed, valences = header.get("emotions", ()), header.get(VALENCES)
    try:
        return find_space(listed) if valences is None else stated_space(listed, valences)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from None
