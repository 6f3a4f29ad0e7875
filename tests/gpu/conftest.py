"""A device for the tests of this folder, or a reason to skip them; collecting them asks for no GPU."""

import gc
import os
import sys
from collections.abc import Iterator

import pytest

from benchmarks.device import is_there, join_group
from tests.gpu.device import DEVICE
from tests.inference.conftest import clip, heads, model_folder, parts, pipeline_folder

__all__ = ["clip", "heads", "model_folder", "parts", "pipeline_folder"]


@pytest.fixture(scope="session", autouse=True)
def device() -> str:
    """The torch device, `cuda` or `cpu`."""
    if not is_there(DEVICE):
        pytest.skip("no GPU")
    if DEVICE == "cuda":
        if "deepspeed" in sys.modules and os.environ.get("DS_ACCELERATOR") != "cuda":
            pytest.fail(
                "DeepSpeed has been loaded for CPUs: run the tests of GPUs by themselves (make test-gpu)"
            )
        os.environ["DS_ACCELERATOR"] = "cuda"  # DeepSpeed reads it when it is imported, also in Ray's workers
    return DEVICE


@pytest.fixture(scope="session")
def process_group(device: str) -> None:
    """This process as a world of one rank."""
    join_group(device)


@pytest.fixture(autouse=True)
def _free_memory(device: str) -> Iterator[None]:
    """Give back what a test held, so that the next one has the whole card."""
    yield
    if device == "cuda":
        import torch

        gc.collect()
        torch.cuda.empty_cache()
