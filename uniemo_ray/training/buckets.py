"""How gradients travel between ranks: DeepSpeed's buckets. The memory estimate counts the same numbers."""

from typing import NamedTuple

BUCKET = 50_000_000
"""Elements of a bucket at most. Several buckets fill in a backward pass, so that the reduction of one runs
beside the computation of the next; one bucket for all of ViT-L/14 would wait until the pass has ended."""


class Buckets(NamedTuple):
    """The buckets of a stage.

    Attributes:
        elements: Size of one; no larger than all that trains, because DeepSpeed takes the memory for it.
        buffers: How many there are at a time.
        is_overlapped: Whether reduction runs while the backward pass goes on.
    """

    elements: int
    buffers: int
    is_overlapped: bool


def plan_buckets(trained: int, *, zero_stage: int, has_gpu: bool) -> Buckets:
    """The buckets for a number of trained elements.

    ZeRO 0 has none: DeepSpeed reduces the gradients themselves, and after the backward pass. ZeRO 1 and 2
    need a second bucket to overlap, ZeRO 3 fills one that is copied out. A CPU has nothing to overlap with.
    """
    is_overlapped = has_gpu and zero_stage > 0
    buffers = 0 if zero_stage == 0 else 2 if is_overlapped and zero_stage < 3 else 1
    return Buckets(max(1, min(BUCKET, trained)), buffers, is_overlapped)
