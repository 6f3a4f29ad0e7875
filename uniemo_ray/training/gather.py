"""Tensors of all ranks as one batch: the InfoNCE losses contrast over the global batch (eq. 4)."""

# B rows of one rank, G rows of all ranks

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _Gather(torch.autograd.Function):
    """All-gather along dim 0 whose backward needs no communication.

    Every rank computes the same loss L of the same gathered tensor, so dL/d(own slice) is already at
    hand. The engine multiplies each rank's loss with its share of the rows and averages over the ranks, so
    each slice is divided by that share.
    """

    @staticmethod
    def forward(context: Any, tensor: Tensor, rows: Sequence[int]) -> Tensor:
        longest = max(rows)
        padded = tensor.new_zeros((longest, *tensor.shape[1:]))
        padded[: len(tensor)] = tensor
        parts = [torch.empty_like(padded) for _ in rows]
        dist.all_gather(parts, padded)
        context.rows = rows
        return torch.cat([part[:count] for part, count in zip(parts, rows, strict=True)])

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        rank = dist.get_rank()
        start, own = sum(context.rows[:rank]), context.rows[rank]
        return gradients[0][start : start + own] * (sum(context.rows) / own), None


def gather_batch(tensor: Tensor, rows: Sequence[int] | None = None) -> Tensor:
    """Concatenate a tensor of every rank along dim 0, in rank order, keeping the gradient.

    Use it only where every rank then computes the same value from the result, and where gradients are
    weighed by each rank's rows and averaged over ranks, as the engine does: the gradient is then that of
    one process with the whole batch.

    Args:
        tensor: (B, ...).
        rows: B of each rank; None when all have equally many.

    Returns:
        (G, ...); `tensor` itself without a process group or with one rank.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return tensor
    gathered: Tensor = _Gather.apply(tensor, rows or [len(tensor)] * dist.get_world_size())
    return gathered


def gather_rows(rows: int, device: torch.device) -> list[int]:
    """The number of rows of every rank, in rank order; collective, and the CPU waits for it."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [rows]
    own = torch.tensor([rows], dtype=torch.int64, device=device)
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    found: list[int] = torch.cat(parts).tolist()
    return found


def sum_over_ranks(counts: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Scalars of every rank, added up by name, fp32 on the device; collective, unless there are none."""
    if not counts:
        return {}
    packed = torch.stack(list(counts.values())).to(device, torch.float32, non_blocking=True)
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(packed)
    return dict(zip(counts, packed, strict=True))
