"""DeepSpeed, imported so that a laptop can use it. The only module that imports deepspeed."""

import logging
import os
import warnings
from collections.abc import Callable
from types import ModuleType

import torch
import torch.distributed as dist
from torch import Tensor


def load_deepspeed() -> ModuleType:
    """Import DeepSpeed quietly, on CPU without the ops that it would compile (a laptop has no compiler)."""
    os.environ.setdefault("LOCAL_RANK", "0")
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        # Importing DeepSpeed would otherwise import torch's compiler as well: two seconds, for nothing.
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    import deepspeed
    import deepspeed.ops

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if os.environ.get("DS_ACCELERATOR") == "cpu":
        # DeepSpeed asks this table before it builds its shared-memory reduction (used by inference only).
        deepspeed.ops.__compatible_ops__ = {}
    module: ModuleType = deepspeed
    return module


def zero3_linear() -> Callable[..., Tensor]:
    """The `linear` that stands in the place of torch's in a process that has used ZeRO 3."""
    load_deepspeed()
    from deepspeed.runtime.zero.linear import zero3_linear_wrap

    linear: Callable[..., Tensor] = zero3_linear_wrap
    return linear


def ensure_process_group() -> None:
    """Be a world of one rank, without any port, unless a process group exists already."""
    if not dist.is_initialized():
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group("gloo", store=store, rank=0, world_size=1)
