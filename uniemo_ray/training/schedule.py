"""The learning rate as a pure function of the global step, so that a resumed run needs no scheduler state."""

import math
from typing import Literal


def rate_factor(
    step: int,
    *,
    total: int,
    warmup: int,
    kind: Literal["constant", "cosine", "cosine_cycles"],
    half_cycle: int = 32,
) -> float:
    """Factor in [0, 1] on the peak learning rate of every group at one step.

    Linear warm-up `(step + 1) / warmup`, then constant, or half a cosine from 1 at the end of the
    warm-up to 0 after the last step, or whole cosines one after another. A warm-up longer than the run
    is cut to half the run, so that short runs reach the peak as well.

    Args:
        step: 0-based global step.
        total: Steps of the whole stage.
        warmup: Steps of the warm-up.
        kind: Shape after the warm-up.
        half_cycle: Steps of `cosine_cycles` from 1 to 0, and from 0 to 1.
    """
    warmup = min(warmup, total // 2)
    if step < warmup:
        return (step + 1) / warmup
    if kind == "constant":
        return 1.0
    if kind == "cosine_cycles":
        return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / half_cycle))
    progress = (step - warmup) / max(1, total - warmup)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def steps_per_epoch(rows: int, *, batch_size: int) -> int:
    """Steps of one pass over `rows` images, whatever the number of workers.

    The last `rows % batch_size` images of an epoch's order would not fill a batch and are left out; another
    epoch leaves out others.
    """
    return rows // batch_size
