"""Several ranks as real processes over gloo, for tests of the engine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_ranks(work: Callable[..., None], ranks: int, folder: Path, *values: Any) -> None:
    """Call `work(rank, *values)` in as many processes as there are ranks; an error of any is raised."""
    store = folder / f"store-{uuid4().hex}"
    mp.spawn(_join, args=(ranks, str(store), work, values), nprocs=ranks)


def _join(rank: int, ranks: int, store: str, work: Callable[..., None], values: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    work(rank, *values)
    dist.barrier()
    dist.destroy_process_group()
