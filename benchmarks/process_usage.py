"""Memory and CPU time of a process and all that it starts, by the kernel's own counts."""

import re
import subprocess
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import psutil

WATCH_EVERY_S = 0.2
_KINDS = (("actor", r"^ray::"), ("gcs", r"gcs_server"), ("raylet", r"raylet/raylet"), ("ray", r"/ray/|^ray"))


class Usage(NamedTuple):
    """What a process and its descendants took."""

    peak_mb: float
    """Peak resident memory of the largest process, by the kernel's own high-water mark."""
    cpu_s: float
    by_kind: dict[str, float]
    """Peak of the largest process of each kind, in MB: driver, actor, gcs, raylet, ray (all others)."""


def watch(process: "subprocess.Popen[str]") -> Usage:
    """Follow a process and its descendants until it ends."""
    root = psutil.Process(process.pid)
    peaks_mb: dict[int, float] = {}
    cpu_s: dict[int, float] = {}
    kinds: dict[int, str] = {}
    while process.poll() is None:
        for one in [root, *descendants(root)]:
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
    return Usage(max(peaks_mb.values()), sum(cpu_s.values()), dict(by_kind))


def kind(command: str) -> str:
    """What a process of Ray is, by its command line."""
    return next((name for name, pattern in _KINDS if re.search(pattern, command)), "other")


def descendants(root: psutil.Process) -> list[psutil.Process]:
    """All that it has started, as far as it still runs."""
    try:
        return root.children(recursive=True)
    except psutil.Error:
        return []
