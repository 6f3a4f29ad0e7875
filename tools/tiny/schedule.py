"""What the tiny trainers share: batches, learning-rate schedule, weight average, progress lines."""

import logging
import math
import time
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

logger = logging.getLogger(__name__)


def warmup_cosine(step: int, *, steps: int, warmup: int = 100, floor: float = 0.02) -> float:
    """Factor on the learning rate: linear warm-up, then a cosine down to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    share = (step - warmup) / max(1, steps - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))


def batches(count: int, *, size: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Endless shuffled index batches; a short last batch of an epoch is left out."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(count)
        yield from (order[i : i + size] for i in range(0, count - size + 1, size))


def scheduled(
    optimizer: torch.optim.Optimizer,
    order: Iterator[NDArray[np.int64]],
    *,
    steps: int,
    lr: float,
    start: int = 0,
    warmup: int = 100,
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Steps from `start` to `steps` and their batches, with the learning rate of each set."""
    for step, index in zip(range(start, steps), order, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = lr * warmup_cosine(step, steps=steps, warmup=warmup)
        yield step, index


class WeightAverage:
    """Exponential moving average of a module's parameters."""

    def __init__(self, module: nn.Module, *, decay: float = 0.999) -> None:
        self.decay = decay
        self.shadow = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, *, step: int) -> None:
        """Move towards the module's weights; the decay warms up so that early weights fade."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, p in module.named_parameters():
            self.shadow[name].lerp_(p.detach(), 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Write the average into the module."""
        for name, p in module.named_parameters():
            p.copy_(self.shadow[name])


class StepLog:
    """One log line with rate and time left, every `every` steps."""

    def __init__(self, name: str, steps: int, *, every: int = 50) -> None:
        self.name, self.steps, self.every = name, steps, every
        self.started = time.monotonic()
        self.first_step: int | None = None

    def log(self, step: int, **values: float) -> None:
        """Report after finishing `step` (0-based)."""
        if self.first_step is None:
            self.first_step = step
        if (step + 1) % self.every and step + 1 != self.steps:
            return
        rate = (step + 1 - self.first_step) / (time.monotonic() - self.started)
        left_s = (self.steps - step - 1) / rate
        numbers = "  ".join(f"{key} {value:.4f}" for key, value in values.items())
        logger.info(
            "%s %d/%d  %s  %.2f steps/s  %.0f s left", self.name, step + 1, self.steps, numbers, rate, left_s
        )
