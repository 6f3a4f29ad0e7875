"""Pointers of Git LFS and saved web pages in the place of weights: each is named as what it is."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from uniemo_ray.data.emoset import EmoSetFolder
from uniemo_ray.data.folder import FolderError
from uniemo_ray.fetch.convert import convert_to_safetensors
from uniemo_ray.inference.model_folder import load_model_folder
from uniemo_ray.inference.released import read_released
from uniemo_ray.metrics.weights import load_weights
from uniemo_ray.models import clip, pipeline_folder
from uniemo_ray.models.clip import load_clip
from uniemo_ray.models.pipeline_folder import find_pipeline
from uniemo_ray.shipped import SHIPPED_FOLDER

STAND_INS = {
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:"
    + b"0" * 64
    + b"\nsize 9\n",
    "a web page": b"<!DOCTYPE html>\n<html><body>Sign in to see this file</body></html>",
}


def find(folder: Path) -> object:
    return find_pipeline(str(folder))


def load(folder: Path) -> object:
    return load_clip(str(folder))


FOLDERS: dict[str, tuple[Path, Callable[[Path], object]]] = {
    "diffusion": (pipeline_folder.TINY_FOLDER, find),
    "clip": (clip.TINY_FOLDER, load),
    "model": (SHIPPED_FOLDER, load_model_folder),
}
FILES = [
    (kind, path.relative_to(folder).as_posix())
    for kind, (folder, _) in FOLDERS.items()
    for path in sorted(folder.rglob("*"))
    if path.is_file()
]


@pytest.mark.parametrize("words", STAND_INS)
@pytest.mark.parametrize(("kind", "name"), FILES)
def test_a_file_of_a_folder_that_was_never_fetched_is_named(
    kind: str, name: str, words: str, tmp_path: Path
) -> None:
    original, read = FOLDERS[kind]
    folder = shutil.copytree(original, tmp_path / "folder")
    (folder / name).write_bytes(STAND_INS[words])
    with pytest.raises(ValueError, match=f"{name} is {words}") as error:
        read(folder)
    assert "\n" not in str(error.value)
    assert "copy the folder again" not in str(error.value)


@pytest.mark.parametrize("words", STAND_INS)
def test_single_files_of_weights_are_named_too(words: str, tmp_path: Path) -> None:
    path = tmp_path / "alexnet-owt-7be5be79.pth"
    path.write_bytes(STAND_INS[words])
    for read in (
        read_released,
        load_weights,
        lambda path: load_clip("ViT-B-32", pretrained=str(path)),
        lambda path: convert_to_safetensors(path, tmp_path / "out"),
    ):
        with pytest.raises(ValueError, match=words):
            read(path)


def test_lists_of_a_data_set_are_named_too(tmp_path: Path) -> None:
    (tmp_path / "info.json").write_bytes(STAND_INS["a pointer of Git LFS"])
    with pytest.raises(FolderError, match=r"info\.json: a pointer of Git LFS"):
        EmoSetFolder(tmp_path)


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_pickle_under_the_name_of_safetensors_is_named(is_zip: bool, tmp_path: Path) -> None:
    folder = shutil.copytree(clip.TINY_FOLDER, tmp_path / "clip")
    weights = folder / clip.WEIGHTS_FILE
    tensors = load_file(clip.TINY_FOLDER / clip.WEIGHTS_FILE)
    torch.save(tensors, weights, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(
        ValueError, match=r"is a file of torch\.save under another name: save it as safetensors"
    ):
        load_clip(str(folder))
