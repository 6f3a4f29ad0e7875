"""Seen while it runs: one line in the job's log every few seconds, and metrics for Prometheus."""

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil
from ray.util import metrics

from uniemo_ray.distributed.beside import beside
from uniemo_ray.distributed.shards.report import ShardReport
from uniemo_ray.distributed.waiting import Waiting, living_nodes
from uniemo_ray.pools import ANYWHERE, FREE, Pool, Prices

logger = logging.getLogger(__name__)
EVERY_S = 10.0
_TAGS = ("step",)
SHARD_SECONDS = [0.3, 1, 3, 10, 30, 60, 120, 300, 600, 1800]
"""Upper ends of the histogram's bins."""


@dataclass
class Progress:
    """Counts of one call, as its shards are committed."""

    label: str
    """What is made, such as `images`."""
    rows: int | None
    """Rows that there will be, where that is known before."""
    shards: int
    prices: Prices = FREE
    """Of the machines; without any, the cost is left out."""
    rows_before: int = 0
    """Rows that earlier submissions have committed."""
    failed_before: int = 0
    """Rows without a result that earlier submissions have committed."""
    shards_before: int = 0
    """Shards that earlier submissions have committed."""
    rows_done: int = 0
    failed: int = 0
    shards_done: int = 0
    groups: Counter[str] = field(default_factory=Counter)
    """Rows with a result by emotion, of this submission."""
    cost: float = 0.0
    """Price of all nodes' time since the submission began, other steps included."""

    def add(self, report: ShardReport) -> None:
        """Count a committed shard."""
        self.rows_done += report.rows
        self.failed += report.failed
        self.shards_done += 1
        self.groups.update(json.loads(report.groups))

    def eta_s(self, seconds: float) -> float | None:
        """Seconds that the shards left will take at the rate so far; None before the first one."""
        left = self.shards - self.shards_before - self.shards_done
        return seconds / self.shards_done * left if self.shards_done else None

    def line(self, seconds: float, *, nodes: int) -> str:
        """The view after so many seconds.

        images: 1280/10000, 3.2/s, ETA 0:45:25, 3 failures, 20/157 shards, 2 nodes, cost 0.12; awe 160, fear 9
        """
        done = self.rows_before + self.rows_done
        eta = self.eta_s(seconds)
        parts = [
            f"{self.label}: {done}" + ("" if self.rows is None else f"/{self.rows}"),
            f"{self.rows_done / seconds:.1f}/s" if seconds > 0 else "0.0/s",
            "ETA unknown" if eta is None else f"ETA {_clock(eta)}",
            f"{self.failed_before + self.failed} failures",
            f"{self.shards_before + self.shards_done}/{self.shards} shards",
            f"{nodes} node{'' if nodes == 1 else 's'}",
        ]
        if self.prices:
            parts.append(f"cost {self.cost:.2f}")
        by_group = ", ".join(f"{name} {count}" for name, count in sorted(self.groups.items()))
        return ", ".join(parts) + (f"; {by_group}" if by_group else "")


class CostMeter:
    """Adds up the price of nodes, from one look at them to the next."""

    def __init__(self, *, since: float) -> None:
        self.cost, self._last = 0.0, since

    def read(self, price_per_hour: float, *, now: float) -> float:
        """Cost until now, when all nodes together cost so much."""
        self.cost += price_per_hour * max(0.0, now - self._last) / 3600
        self._last = now
        return self.cost


_METER = CostMeter(since=psutil.Process().create_time())
"""The meter of this process. Machines cost money between two pools of actors as well: training runs then."""


@contextmanager
def shown(progress: Progress, pool: Pool = ANYWHERE, *, every_s: float = EVERY_S) -> Iterator[None]:
    """Log the progress every few seconds and at the end, and keep the driver's metrics up to date.

    While no machine of the pool is there, the line says so. A thread does it: the driver itself waits for
    the next shard, which may take minutes.
    """
    started = time.monotonic()
    gauges, waiting = DriverMetrics(progress.label), Waiting(progress.label, pool)

    def show(is_over: threading.Event) -> None:
        seconds, nodes = time.monotonic() - started, living_nodes()
        price = sum(progress.prices.of(node.get("Labels") or {}) for node in nodes)
        progress.cost = _METER.read(price, now=time.time())
        waits = None if is_over.is_set() else waiting.line(nodes, now=time.monotonic())
        logger.info("%s", waits or progress.line(seconds, nodes=len(nodes)))
        gauges.show(progress, seconds)

    def keep_showing(is_over: threading.Event) -> None:
        if waits := waiting.line(living_nodes(), now=started):
            logger.info("%s", waits)
        while not is_over.wait(every_s):
            show(is_over)
        show(is_over)

    with beside(keep_showing, name="uniemo-progress", within_s=every_s):
        yield


class WorkerMetrics:
    """What an actor tells Prometheus: `uniemo_rows_total` and so on, by step and emotion."""

    def __init__(self, step: str, *, device: str = "cpu") -> None:
        self.tags, self._device = {"step": step}, device
        self.rows = metrics.Counter("uniemo_rows", "Rows with a result", tag_keys=(*_TAGS, "emotion"))
        self.failures = metrics.Counter("uniemo_failed_rows", "Rows without a result", tag_keys=_TAGS)
        self.shards = metrics.Counter("uniemo_shards", "Committed shards", tag_keys=_TAGS)
        self.errors = metrics.Counter("uniemo_failed_shards", "Shards to be tried again", tag_keys=_TAGS)
        self.seconds = metrics.Histogram(
            "uniemo_shard_seconds", "Time to make a shard", boundaries=SHARD_SECONDS, tag_keys=_TAGS
        )
        self.memory = metrics.Gauge(
            "uniemo_gpu_memory_bytes", "Most memory of its GPU that an actor has held", tag_keys=_TAGS
        )

    def count(self, report: ShardReport, *, seconds: float = 0.0) -> None:
        """After each shard, which has taken so many seconds."""
        if self._device == "cuda":
            import torch  # reading a data set does without

            self.memory.set(torch.cuda.max_memory_reserved(), self.tags)
        if report.kind:
            self.errors.inc(1, self.tags)
            return
        # a shard of samples holds no row of what was rejected, unlike one of results
        groups = json.loads(report.groups) or {"": max(0, report.rows - report.failed)}
        for emotion, count in groups.items():
            if count:
                self.rows.inc(count, {**self.tags, "emotion": ascii_tag(emotion)})
        if report.failed:
            self.failures.inc(report.failed, self.tags)
        self.shards.inc(1, self.tags)
        self.seconds.observe(seconds, self.tags)


class DriverMetrics:
    """What the driver tells Prometheus."""

    def __init__(self, step: str) -> None:
        self.tags = {"step": step}
        self.left = metrics.Gauge("uniemo_shards_left", "Shards to be made", tag_keys=_TAGS)
        self.eta = metrics.Gauge("uniemo_eta_seconds", "Estimated time to the end", tag_keys=_TAGS)
        self.cost = metrics.Gauge("uniemo_cost", "Price of the nodes' time so far", tag_keys=_TAGS)

    def show(self, progress: Progress, seconds: float) -> None:
        """After each line."""
        self.left.set(progress.shards - progress.shards_before - progress.shards_done, self.tags)
        self.eta.set(progress.eta_s(seconds) or 0.0, self.tags)
        self.cost.set(progress.cost, self.tags)


def ascii_tag(text: str) -> str:
    """A tag that Ray's metrics take: they refuse all other characters than those of ASCII."""
    return text.encode("ascii", "backslashreplace").decode()


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
