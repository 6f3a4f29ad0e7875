"""What this process computes on: the model and driver of its GPU, and how that multiplies fp32 numbers."""

import re
from pathlib import Path

import torch

_DRIVER = Path("/proc/driver/nvidia/version")


def set_tf32(is_on: bool) -> None:
    """Let GPUs round the factors of fp32 products to TF32, or forbid it. It changes nothing on a CPU."""
    if torch.cuda.is_available():  # the same switches would change the arithmetic of some CPUs
        torch.backends.cuda.matmul.allow_tf32 = is_on
        torch.backends.cudnn.allow_tf32 = is_on


def has_tf32() -> bool:
    """Whether matrix products and convolutions may both use TF32 on a GPU."""
    return bool(torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32)


def describe_device(processor: str) -> dict[str, str | bool | None]:
    """What decides the rounding of results, beside libraries.

    Args:
        processor: type of a torch device.

    Returns:
        GPU, driver, CUDA and TF32; None where it cannot be told; nothing on a CPU.
    """
    if processor != "cuda":
        return {}
    return {
        "gpu": torch.cuda.get_device_name(),
        "driver": driver_version(),
        "cuda": torch.version.cuda,
        "tf32": has_tf32(),
    }


def driver_version(path: Path = _DRIVER) -> str | None:
    """Version of NVIDIA's kernel driver, such as `580.65.06`; None where there is none."""
    try:
        found = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", path.read_text(encoding="utf-8"))
    except OSError:
        return None
    return found[0] if found else None
