"""Several ranks as real processes, each with a GPU of its own or on the CPU."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.gpu.device import DEVICE


def run_ranks(work: Callable[..., None], ranks: int, folder: Path, *values: Any) -> None:
    """Call `work(rank, ranks, folder, *values)` in as many processes; an error of any of them is raised."""
    mp.spawn(_join, args=(ranks, str(folder), uuid4().hex, work, values), nprocs=ranks)


def _join(
    rank: int, ranks: int, folder: str, name: str, work: Callable[..., None], values: tuple[Any, ...]
) -> None:
    os.environ.update(LOCAL_RANK=str(rank), RANK=str(rank), WORLD_SIZE=str(ranks), DS_ACCELERATOR=DEVICE)
    torch.set_num_threads(1)
    if DEVICE == "cuda":
        torch.cuda.set_device(rank)
    backend = "nccl" if DEVICE == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{folder}/{name}", rank=rank, world_size=ranks)
    work(rank, ranks, Path(folder), *values)
    dist.barrier()
    dist.destroy_process_group()
