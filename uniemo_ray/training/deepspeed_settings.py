"""DeepSpeed's settings for a stage, and the arithmetic that the ranks' processors allow."""

from typing import Any, Literal

import torch
import torch.distributed as dist

from uniemo_ray.config import TrainConfig
from uniemo_ray.training.buckets import Buckets

Precision = Literal["fp32", "bf16", "fp16"]


def deepspeed_config(
    train: TrainConfig, world_size: int, *, precision: Precision, buckets: Buckets
) -> dict[str, Any]:
    """DeepSpeed's JSON for a stage; every DeepSpeed setting of the project is here.

    bf16 is DeepSpeed's `torch_autocast`: weights, optimizer state and losses stay fp32, communication is as
    `reduce_dtype` says, and matrix products run in bf16. Neither fp16 (see `half_precision`) nor the learning
    rate (see `schedule`) is DeepSpeed's business.

    Args:
        train: The stage's settings.
        world_size: Ranks that share the global batch.
        precision: Arithmetic of matrix products, as `resolve_precision` tells.
        buckets: Of the gradients, as `plan_buckets` tells.
    """
    config: dict[str, Any] = {
        # The engine weighs rows and counts passes itself; this is only what DeepSpeed's own counters show.
        "train_micro_batch_size_per_gpu": max(1, train.batch_size // world_size),
        "gradient_accumulation_steps": 1,
        "gradient_clipping": train.gradient_clip or 0.0,  # 0 is DeepSpeed's word for none
        "zero_optimization": {
            "stage": train.zero_stage,
            "reduce_bucket_size": buckets.elements,
            "overlap_comm": buckets.is_overlapped,
        },
        "communication_data_type": train.reduce_dtype,
        "zero_allow_untested_optimizer": True,  # ours: `optimizers.MomentumSgd`
        "steps_per_print": 1_000_000_000,
    }
    if precision == "bf16":
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
        if not (train.reduce_dtype == "bf16" and train.zero_stage == 3):
            # An empty list of "safe" modules keeps gathered weights and reduced gradients in fp32. Without it
            # ZeRO 3 moves both in bf16 for linear and convolution layers, which compute in bf16 anyway.
            config["torch_autocast"]["lower_precision_safe_modules"] = []
    return config


def reduce_in_bf16(optimizer: torch.optim.Optimizer) -> None:
    """Mark trained parameters so that DeepSpeed reduces their gradients in bf16 under its autocast.

    There it looks at this mark and not at `communication_data_type` (0.19.8). ZeRO 3 would also gather the
    weights in bf16, those of norms as well, so it is for ZeRO 0 to 2.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.comm_dtype = torch.bfloat16


def has_bf16() -> bool:
    """Whether this process' GPU, or without one its CPU, multiplies matrices in bf16 itself."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def resolve_precision(train: TrainConfig, device: torch.device) -> Precision:
    """The stage's arithmetic, `auto` replaced by what all ranks can do; collective."""
    if train.precision != "auto":
        return train.precision
    can = torch.tensor(int(has_bf16()), device=device)
    dist.all_reduce(can, op=dist.ReduceOp.MIN)
    return "bf16" if can else "fp32"
