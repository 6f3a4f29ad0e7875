"""A device for the tests of this folder, or a reason to skip them; collecting them asks for no GPU."""

import gc
import os
import sys
from collections.abc import Iterator

import pytest

from tests.gpu.device import DEVICE
from tests.inference.conftest import clip, heads, model_folder, parts, pipeline_folder

__all__ = ["clip", "heads", "model_folder", "parts", "pipeline_folder"]


@pytest.fixture(scope="session", autouse=True)
def device() -> str:
    """The torch device, `cuda` or `cpu`."""
    import torch

    if DEVICE == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no GPU")
        if "deepspeed" in sys.modules and os.environ.get("DS_ACCELERATOR") != "cuda":
            pytest.fail(
                "DeepSpeed has been loaded for CPUs: run the tests of GPUs by themselves (make test-gpu)"
            )
        os.environ["DS_ACCELERATOR"] = (
            "cuda"  # before the first import of DeepSpeed, here and in Ray's workers
        )
    return DEVICE


@pytest.fixture(scope="session")
def process_group(device: str) -> None:
    """This process as a world of one rank, with the library that several GPUs would use."""
    import torch.distributed as dist

    if not dist.is_initialized():
        backend = "nccl" if device == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)


@pytest.fixture(autouse=True)
def _free_memory(device: str) -> Iterator[None]:
    """Give back what a test held, so that the next one has the whole card."""
    yield
    if device == "cuda":
        import torch

        gc.collect()
        torch.cuda.empty_cache()
