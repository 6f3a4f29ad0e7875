"""What a machine lacks for a run, found on that machine: one line for each fault."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from uniemo_ray.addresses import locate
from uniemo_ray.config import Config
from uniemo_ray.config.baselines import LANGUAGE_BASELINES
from uniemo_ray.pools import POOLS, find_pool
from uniemo_ray.scratch import scratch_folder

LEAST_SCRATCH_GB = 2.0
"""Free scratch below which not even a small model folder fits. Unit: GB."""


@dataclass(frozen=True)
class Needs:
    """What every machine that works for a run must have."""

    use_gpu: bool
    bf16: bool
    paths: tuple[tuple[str, str], ...]
    """Setting and absolute local path, which the driver sees."""
    tracking: tuple[str, ...] = ()
    """Where training metrics go: packages that only some machines may have."""


def needs_of(config: Config, *, is_ingested: bool = False) -> Needs:
    """What the settings ask of each machine. Files that the package brings are everywhere.

    Args:
        config: of the run.
        is_ingested: whether the data set's shards are there, so that nobody reads its folder again.
    """
    names = {
        "data.root": None if is_ingested else config.data.root,
        "encoder.clip": config.encoder.clip,
        "encoder.clip_pretrained": config.encoder.clip_pretrained,
        "diffusion.model": config.diffusion.model,
        "generation_baselines.plain_prompt.sdxl_model": config.generation_baselines.plain_prompt.sdxl_model,
        "evaluation.weights_dir": config.evaluation.weights_dir,
        "evaluation.model": config.evaluation.model,
        "run": locate(config.run),
        **{
            f"baselines.{name}.model": getattr(config.baselines, name).model
            for name in LANGUAGE_BASELINES
            if name in config.baselines.run
        },
    }
    precisions = {config.stage1.precision, config.stage2.precision, config.diffusion.frozen_dtype}
    return Needs(
        use_gpu=any(find_pool(config, name).gpus for name in POOLS),
        bf16="bf16" in precisions,
        paths=tuple(
            (setting, path)
            for setting, path in names.items()
            if path and "://" not in path and Path(path).is_absolute() and Path(path).exists()
        ),
        tracking=config.tracking,
    )


def faults_here(needs: Needs) -> list[str]:
    """What this machine lacks."""
    return [
        *_path_faults(needs.paths),
        *_scratch_faults(),
        *_tracking_faults(needs.tracking),
        *(_gpu_faults(needs.bf16) if needs.use_gpu else []),
    ]


def _path_faults(paths: Sequence[tuple[str, str]]) -> list[str]:
    found = []
    for setting, path in paths:
        if not os.path.exists(path):
            found.append(
                f"does not see {setting} {path}: use a shared disk, or an s3:// address where it may be one"
            )
        elif not os.access(path, os.R_OK):
            found.append(f"may not read {setting} {path}")
    return found


def _tracking_faults(names: Sequence[str]) -> list[str]:
    return [
        f"has no package {name}, which the setting tracking names: pip install {name}, or leave it out"
        for name in names
        if find_spec(name) is None
    ]


def _scratch_faults() -> list[str]:
    try:
        folder = scratch_folder()
    except ValueError as error:
        return [str(error)]
    if not os.access(folder, os.W_OK):
        return [f"may not write its scratch folder {folder}: set resources.scratch"]
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < LEAST_SCRATCH_GB:
        return [
            f"has {free_gb:.1f} GB free in its scratch folder {folder}: set resources.scratch to a larger "
            "disk"
        ]
    return []


def _gpu_faults(needs_bf16: bool) -> list[str]:
    """What keeps torch from the accelerator here; torch is imported now, as only this question needs it."""
    import torch

    if torch.version.cuda is None and not torch.cuda.is_available():
        return [f"has torch {torch.__version__}, which is built without CUDA: install a CUDA build"]
    if not torch.cuda.is_available():
        has, wants = _driver_cuda(), _version(torch.version.cuda)
        if has is None:
            return [
                "has no usable NVIDIA driver, or no GPU that this process may use: check nvidia-smi there"
            ]
        if has < wants:
            return [
                f"has an NVIDIA driver for CUDA {has[0]}.{has[1]}, and torch {torch.__version__} needs CUDA "
                f"{wants[0]}.{wants[1]}: update the driver, or install a torch for its CUDA"
            ]
        return ["has a driver that fits torch, but torch finds no GPU: check nvidia-smi there"]
    if needs_bf16 and not torch.cuda.is_bf16_supported(including_emulation=False):
        return [
            f"has a {torch.cuda.get_device_name()}, which has no bf16: set the precisions to fp16 or fp32"
        ]
    return []


def _driver_cuda() -> tuple[int, int] | None:
    """The newest CUDA that the driver supports."""
    import torch

    number = int(torch._C._cuda_getDriverVersion()) if hasattr(torch._C, "_cuda_getDriverVersion") else 0
    return (number // 1000, number % 1000 // 10) if number else None


def _version(text: str | None) -> tuple[int, int]:
    major, _, minor = (text or "0.0").partition(".")
    return int(major), int(minor.partition(".")[0] or 0)
