"""Memory of one GPU under DeepSpeed's ZeRO, as `training/engine.py` configures it. Pure arithmetic."""

from dataclasses import dataclass

from uniemo_ray.training.buckets import plan_buckets

ZERO_STAGES = (0, 1, 2, 3)
FP32 = 4
MOMENTS = 8
"""AdamW's two moments, fp32."""
LIVE = 1_000_000_000
"""Parameters that ZeRO 3 keeps gathered at most."""
RESERVE = 1_500_000_000
"""Bytes for the GPU's own context and the kernels' workspaces; an estimate."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What one GPU holds in a stage, before ZeRO splits any of it."""

    trained: int
    """Parameters that train."""
    frozen: int
    """Frozen parameters inside what DeepSpeed wraps."""
    outside: int
    """Bytes of the frozen models beside it: whole on every GPU."""
    activations: int | None
    """Bytes kept for the backward pass; None when they were not estimated."""
    is_averaged: bool = False
    """Whether the stage keeps an average of its weights."""


@dataclass(frozen=True, kw_only=True)
class GpuMemory:
    """Bytes on one GPU, by what they are for."""

    zero_stage: int
    weights: int
    """Weights that train and weights that DeepSpeed wraps beside them, with ZeRO 3's gathered copies."""
    master: int
    """ZeRO's own fp32 copy of the share that this GPU updates."""
    gradients: int
    bucket: int
    """DeepSpeed's buffers for gradients on their way."""
    optimizer: int
    """AdamW's moments."""
    frozen: int
    """VAE, text encoders and, unless it trains, the denoiser."""
    activations: int
    average: int = 0
    """Average of the weights that this GPU updates, fp32, where the stage keeps one."""
    reserve: int = RESERVE

    @property
    def total(self) -> int:
        """All of it."""
        model = self.weights + self.master + self.gradients + self.bucket + self.optimizer + self.average
        return model + self.frozen + self.activations + self.reserve


def gpu_memory(load: Load, *, zero_stage: int, gpus: int) -> GpuMemory:
    """Bytes on one of `gpus` GPUs.

    Weights, gradients and moments are fp32 also under bf16 autocast. ZeRO 1 splits the moments and a master
    copy, ZeRO 2 also the gradients, ZeRO 3 also the weights.

    Raises:
        ValueError: for a ZeRO stage that does not exist, or no GPU.
    """
    if zero_stage not in ZERO_STAGES or gpus < 1:
        raise ValueError(f"expected ZeRO 0 to 3 on 1 GPU or more, got ZeRO {zero_stage} on {gpus}")
    share = _split(load.trained, gpus)
    whole = load.trained + load.frozen
    buckets = plan_buckets(load.trained, zero_stage=zero_stage, has_gpu=True)
    weights = whole if zero_stage < 3 else _split(whole, gpus) + min(whole, LIVE)
    return GpuMemory(
        zero_stage=zero_stage,
        weights=FP32 * weights,
        master=FP32 * share if zero_stage else 0,
        gradients=FP32 * (load.trained if zero_stage < 2 else share),
        bucket=FP32 * buckets.elements * buckets.buffers,
        optimizer=MOMENTS * (share if zero_stage else load.trained),
        frozen=load.outside,
        activations=load.activations or 0,
        average=FP32 * (share if zero_stage else load.trained) if load.is_averaged else 0,
    )


def _split(count: int, gpus: int) -> int:
    return -(-count // gpus)
