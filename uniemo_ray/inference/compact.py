"""A trained model in a few megabytes: weights in eight bits, the tiny base weights by reference.

`config.json` of such a folder says `"base": "tiny"`: its `clip/` and `diffusion/` are the package's own. The
checksums cover them all the same, so the folder is only ever read with the weights it was trained on.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from uniemo_ray.inference.checksums import BASE, BASE_PARTS, CONFIG, read_config, verify, write_checksums

NET = "model.safetensors"
SCALE = ":scale"
"""Ends the name of a tensor's row scales."""
LEVELS = 127


def save_compact(source: Path, target: Path) -> str:
    """Write a small copy of a model folder that was trained on the tiny base models; returns its fingerprint.

    Raises:
        ValueError: the source is damaged or built on other base models, or the target exists.
    """
    verify(source)
    _check_base(source)
    if target.exists():
        raise ValueError(f"{target} exists: choose another folder, or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".compact-", dir=target.parent) as scratch:
        folder = Path(scratch) / "model"
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns(*BASE_PARTS))
        header = read_config(source) | {"base": "tiny"}
        (folder / CONFIG).write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")
        save_file(to_eight_bits(from_eight_bits(load_file(source / NET))), folder / NET)
        fingerprint = write_checksums(folder)
        folder.rename(target)
    return fingerprint


def to_eight_bits(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices as signed bytes with one scale per row; vectors and integers as they are."""
    small: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if tensor.ndim < 2 or not tensor.is_floating_point():
            small[name] = tensor.contiguous()
            continue
        rows = tensor.float().flatten(1)
        scale = rows.abs().amax(dim=1) / LEVELS
        levels = torch.where(scale[:, None] > 0, rows / scale[:, None], 0).round()
        small[name] = levels.to(torch.int8).reshape(tensor.shape)
        small[name + SCALE] = scale
    return small


def from_eight_bits(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `to_eight_bits`, up to rounding; a state in full precision comes back unchanged."""
    full: dict[str, Tensor] = {}
    for name, tensor in state.items():
        scale = state.get(name + SCALE)
        if name.endswith(SCALE):
            continue
        full[name] = (
            tensor if scale is None else (tensor.float().flatten(1) * scale[:, None]).reshape(tensor.shape)
        )
    return full


def _check_base(source: Path) -> None:
    """Raise ValueError unless clip/ and diffusion/ are the package's."""
    if "base" in read_config(source):
        return
    files = [path for part in BASE_PARTS for path in (source / part).rglob("*") if path.is_file()]
    for path in files:
        name = path.relative_to(source)
        if not (BASE / name).is_file() or not _is_same(path, BASE / name):
            raise ValueError(
                f"{path} is not the tiny base model's: only models on encoder.clip 'tiny' and a frozen "
                f"diffusion.model 'tiny' have a compact form"
            )


def _is_same(one: Path, other: Path) -> bool:
    if one.suffix == ".json":
        return bool(
            json.loads(one.read_text(encoding="utf-8")) == json.loads(other.read_text(encoding="utf-8"))
        )
    return one.read_bytes() == other.read_bytes()
