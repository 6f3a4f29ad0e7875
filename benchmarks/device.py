"""What the benchmark and the tests of GPUs run on."""

import os
import tempfile
from pathlib import Path


def chosen_device() -> str:
    """`cuda`, or `cpu` where `UNIEMO_DEVICE` says so, which tries the logic at small sizes."""
    device = os.environ.get("UNIEMO_DEVICE", "cuda")
    if device not in ("cuda", "cpu"):
        raise ValueError(f"UNIEMO_DEVICE is {device!r}: set it to cuda or cpu")
    return device


def is_there(device: str) -> bool:
    """Whether this machine has it."""
    import torch

    return device == "cpu" or torch.cuda.is_available()


def join_group(device: str) -> None:
    """Make this process a world of one rank, with the library that several GPUs would use."""
    import torch.distributed as dist

    if not dist.is_initialized():
        backend, store = "nccl" if device == "cuda" else "gloo", Path(tempfile.mkdtemp(), "store")
        dist.init_process_group(backend, init_method=f"file://{store}", rank=0, world_size=1)


def machine(device: str) -> dict[str, str]:
    """What figures of this machine depend on."""
    import platform

    import torch

    found = {"torch": torch.__version__, "python": platform.python_version(), "CPUs": str(os.cpu_count())}
    if device == "cpu":
        return {"device": "CPU, which says nothing of a GPU"} | found
    memory = torch.cuda.get_device_properties("cuda").total_memory
    return {
        "device": f"{torch.cuda.get_device_name()}, {memory / 1e9:.0f} GB",
        "driver": _driver(),
        "CUDA": str(torch.version.cuda),
        "cuDNN": str(torch.backends.cudnn.version()),
        **found,
    }


def _driver() -> str:
    """The line in which NVIDIA's kernel module names its version."""
    path = Path("/proc/driver/nvidia/version")
    return path.read_text(encoding="utf-8").splitlines()[0] if path.is_file() else "unknown"
