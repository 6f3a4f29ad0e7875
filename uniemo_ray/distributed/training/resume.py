"""What a stage has in its storage when an attempt begins."""

import posixpath
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
from pyarrow import fs

from uniemo_ray.training.state import TrainState, load_history, load_state

SNAPSHOT = "checkpoint_manager_snapshot.json"
CHECKPOINT = "checkpoint_"
"""How Ray Train begins the name of a checkpoint's folder."""


@dataclass(frozen=True)
class Resume:
    """The last checkpoint of a stage, as far as the driver needs it."""

    path: str
    state: TrainState
    history: list[dict[str, Any]]


def last_checkpoint(filesystem: fs.FileSystem, folder: str, *, epochs: int) -> Resume | None:
    """The last complete checkpoint of a stage of so many epochs, or None before the first."""
    if filesystem.get_file_info(posixpath.join(folder, SNAPSHOT)).type != fs.FileType.File:
        return None
    checkpoint = ray.train.Result.from_path(folder, storage_filesystem=filesystem).checkpoint
    if checkpoint is None:
        return None
    with tempfile.TemporaryDirectory() as path:
        local = Path(path)
        for info in filesystem.get_file_info(fs.FileSelector(checkpoint.path)):
            if info.extension in ("json", "jsonl"):  # weights and moments beside them are large
                fs.copy_files(info.path, str(local / info.base_name), source_filesystem=filesystem)
        return Resume(checkpoint.path, load_state(local, epochs=epochs), load_history(local))


def remove_orphans(filesystem: fs.FileSystem, folder: str) -> list[str]:
    """Remove checkpoints whose upload was cut off: Ray Train never learnt of them. Names of these.

    Args:
        filesystem: Of the storage.
        folder: Of a stage that no attempt trains at present.
    """
    known: set[str] = set()
    if filesystem.get_file_info(posixpath.join(folder, SNAPSHOT)).type == fs.FileType.File:
        result = ray.train.Result.from_path(folder, storage_filesystem=filesystem)
        checkpoints = [result.checkpoint, *(one for one, _ in result.best_checkpoints or [])]
        known = {posixpath.basename(one.path) for one in checkpoints if one is not None}
    there = filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    orphans = [
        info
        for info in there
        if info.type == fs.FileType.Directory
        and info.base_name.startswith(CHECKPOINT)
        and info.base_name not in known
    ]
    for info in orphans:
        filesystem.delete_dir(info.path)
    return sorted(info.base_name for info in orphans)
