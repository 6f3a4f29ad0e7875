"""Seconds, memory and busy share of work on a device, with what a CPU offers in their place."""

import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from statistics import median
from typing import NamedTuple

import torch

Work = Callable[[], object]
SAMPLE_S = 0.05


class Pair(NamedTuple):
    """Seconds of the same work by two ways, measured in turns."""

    ours: float
    bare: float
    ratio: float
    """Median over the turns of bare / ours: above 1 ours is faster."""


class Memory(NamedTuple):
    """Bytes of a device that a process needed."""

    allocated: int
    """Largest sum of tensors at a time."""
    context: int
    """What the driver and the libraries hold beside the tensors."""

    @property
    def total(self) -> int:
        """What the device must have."""
        return self.allocated + self.context


class Busy(NamedTuple):
    """Share of the time in which the device had work."""

    share: float
    by: str
    """How it was measured."""


class Meter:
    """Measures work on one device, which nothing else uses."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.has_nvml = device == "cuda" and find_spec("pynvml") is not None

    def sync(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Work, repeats: int) -> float:
        """Seconds of one call, the mean of several."""
        self.sync()
        started = time.perf_counter()
        for _ in range(repeats):
            work()
        self.sync()
        return (time.perf_counter() - started) / repeats

    def compare(self, ours: Work, bare: Work, *, repeats: int, turns: int) -> Pair:
        """Both in turns, after a first call of each that is not counted."""
        ours(), bare()
        times = [(self.seconds(ours, repeats), self.seconds(bare, repeats)) for _ in range(turns)]
        mine, theirs = zip(*times, strict=True)
        return Pair(median(mine), median(theirs), median(b / a for a, b in times))

    def memory(self, work: Work) -> Memory | None:
        """What two calls needed; None on a CPU, whose memory belongs to the whole machine."""
        if self.device != "cuda":
            work()
            return None
        torch.cuda.reset_peak_memory_stats()
        work(), work()
        self.sync()
        free, total = torch.cuda.mem_get_info()
        return Memory(torch.cuda.max_memory_allocated(), total - free - torch.cuda.memory_reserved())

    def busy(self, work: Work, repeats: int) -> Busy:
        """By the driver's counter where pynvml is installed, else by the profiler's times of kernels."""
        return self._sampled(work, repeats) if self.has_nvml else self._profiled(work, repeats)

    def _sampled(self, work: Work, repeats: int) -> Busy:
        samples: list[int] = []
        is_over = threading.Event()

        def sample() -> None:
            while not is_over.wait(SAMPLE_S):
                samples.append(torch.cuda.utilization())

        thread = threading.Thread(target=sample)
        thread.start()
        self.seconds(work, repeats)
        is_over.set()
        thread.join()
        return Busy(sum(samples) / max(1, len(samples)) / 100, "NVML")

    def _profiled(self, work: Work, repeats: int) -> Busy:
        """Times of kernels on a GPU; on a CPU those of operations, so that this is tried without a GPU."""
        is_gpu = self.device == "cuda"
        activity = torch.profiler.ProfilerActivity
        with torch.profiler.profile(activities=[activity.CUDA if is_gpu else activity.CPU]) as profile:
            wall = self.seconds(work, repeats) * repeats
        name = "self_device_time_total" if is_gpu else "self_cpu_time_total"
        spent = sum(float(getattr(row, name)) for row in profile.key_averages()) / 1e6
        return Busy(min(1.0, spent / wall), "profiler")
