"""Memory and CPU time of a process and all that it starts, by the kernel's own counts."""

import re
import subprocess
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import psutil

WATCH_EVERY_S = 0.2
SUM_EVERY_S = 1.0
_KINDS = (("actor", r"^ray::"), ("gcs", r"gcs_server"), ("raylet", r"raylet/raylet"), ("ray", r"/ray/|^ray"))


class Usage(NamedTuple):
    """What a process and its descendants took."""

    peak_mb: float
    """Peak resident memory of the largest process, by the kernel's own high-water mark."""
    cpu_s: float
    by_kind: dict[str, float]
    """Peak of the largest process of each kind, in MB: driver, actor (or task), gcs, raylet, ray (others)."""
    all_mb: float
    """Most that all processes held at once, in MB; shared pages count once (PSS)."""


def watch(process: "subprocess.Popen[str]") -> Usage:
    """Follow a process and its descendants until it ends."""
    root = psutil.Process(process.pid)
    peaks_mb: dict[int, float] = {}
    cpu_s: dict[int, float] = {}
    kinds: dict[int, str] = {}
    all_mb, next_sum = 0.0, 0.0
    while process.poll() is None:
        living = [root, *descendants(root)]
        if time.monotonic() >= next_sum:
            all_mb = max(all_mb, sum(map(proportional_bytes, living)) / 1e6)
            next_sum = time.monotonic() + SUM_EVERY_S
        for one in living:
            try:
                status = Path(f"/proc/{one.pid}/status").read_text()
                peak_kb = next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line)
                times = one.cpu_times()
                peaks_mb[one.pid] = peak_kb * 1024 / 1e6
                cpu_s[one.pid] = times.user + times.system
                kinds[one.pid] = "driver" if one.pid == root.pid else kind(" ".join(one.cmdline()))
            except (psutil.Error, OSError, StopIteration):
                continue  # it has just ended
        time.sleep(WATCH_EVERY_S)
    by_kind: dict[str, float] = defaultdict(float)
    for pid, name in kinds.items():
        by_kind[name] = max(by_kind[name], peaks_mb[pid])
    return Usage(max(peaks_mb.values()), sum(cpu_s.values()), dict(by_kind), all_mb)


def proportional_bytes(process: psutil.Process) -> int:
    """What a process holds, with its share of pages that several hold; 0 when it has ended."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0


def kind(command: str) -> str:
    """What a process of Ray is, by its command line."""
    return next((name for name, pattern in _KINDS if re.search(pattern, command)), "other")


def descendants(root: psutil.Process) -> list[psutil.Process]:
    """All that it has started, as far as it still runs."""
    try:
        return root.children(recursive=True)
    except psutil.Error:
        return []
