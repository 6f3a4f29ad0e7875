"""What a command cost: its time, and the most memory that all processes of the head held at once."""

import threading
import time

import psutil

from uniemo_ray.head.state import HeadState, processes

EVERY_S = 10.0


class Usage:
    """Samples memory in a thread, between `with` and the end of its block.

    Shared pages count once: the figure is the sum of proportional set sizes (PSS), plus those of this
    process and its own children. Only Linux has PSS; elsewhere there is no figure.
    """

    def __init__(self, state: HeadState) -> None:
        self._state = state
        self._started = time.monotonic()
        self._peak_bytes = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "Usage":
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ended.set()
        self._thread.join(timeout=EVERY_S)

    def _sample(self) -> None:
        while not self._ended.wait(EVERY_S):
            own = psutil.Process()
            members = {p.pid: p for p in [*processes(self._state), own, *own.children(recursive=True)]}
            self._peak_bytes = max(self._peak_bytes, sum(proportional_bytes(p) for p in members.values()))

    def line(self) -> str:
        """Such as `10:42 min, peak memory of all processes 5.3 GB`."""
        seconds = int(time.monotonic() - self._started)
        memory = f", peak memory of all processes {self._peak_bytes / 1e9:.1f} GB" if self._peak_bytes else ""
        return f"{seconds // 60}:{seconds % 60:02d} min{memory}"


def proportional_bytes(process: psutil.Process) -> int:
    """PSS of one process; 0 when it is gone, somebody else's, or the system knows no PSS."""
    try:
        return int(getattr(process.memory_full_info(), "pss", 0))
    except psutil.Error:
        return 0
