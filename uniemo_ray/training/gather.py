"""Tensors of all ranks as one batch: the InfoNCE losses contrast over the global batch (eq. 4)."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _Gather(torch.autograd.Function):
    """All-gather along dim 0 whose backward needs no communication.

    Every rank computes the same loss L of the same gathered tensor, so dL/d(own slice) is already at
    hand. Engines average gradients over the ranks, so each slice is scaled by their number.
    """

    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor.contiguous())
        context.rows = tensor.shape[0]
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        start = dist.get_rank() * context.rows
        return gradients[0][start : start + context.rows] * dist.get_world_size()


def gather_batch(tensor: Tensor) -> Tensor:
    """Concatenate a tensor of every rank along dim 0, in rank order, keeping the gradient.

    Use it only where every rank then computes the same value from the result, and average parameter
    gradients over ranks, as DeepSpeed does: the gradient is then that of one process with the whole batch.

    Args:
        tensor: (B, ...), the same shape on every rank; without gradients B may differ.

    Returns:
        All rows; `tensor` itself without a process group or with one rank.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return tensor
    if not torch.is_grad_enabled():
        return _gather_uneven(tensor)
    gathered: Tensor = _Gather.apply(tensor)
    return gathered


def _gather_uneven(tensor: Tensor) -> Tensor:
    """Without a gradient, and with another number of rows on each rank: the last batch of an evaluation."""
    rows = torch.tensor([len(tensor)], device=tensor.device)
    counts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, rows)
    sizes = [int(count) for count in counts]
    padded = tensor.new_zeros((max(sizes), *tensor.shape[1:]))
    padded[: len(tensor)] = tensor
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
