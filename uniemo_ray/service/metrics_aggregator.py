"""A Ray Serve deployment that adds up the metrics of several endpoint replicas."""

import time
from collections.abc import Callable

from uniemo_ray.service.api.metrics_snapshot import MetricsSnapshot, merge_snapshots, without_gauges

GONE_AFTER_S = 15.0
"""A replica that has not reported for this long counts as gone, with no open requests."""


class MetricsAggregator:
    """Keeps the last snapshot of every endpoint replica, also of those that are gone.

    A counter of the application must not fall when one of its replicas is replaced.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.latest: dict[str, tuple[float, MetricsSnapshot]] = {}

    async def exchange(self, replica: str, snapshot: MetricsSnapshot) -> MetricsSnapshot:
        """Store the snapshot of a replica; returns the sum over all replicas."""
        now = self.clock()
        self.latest[replica] = now, snapshot
        return merge_snapshots(
            latest if now - at < GONE_AFTER_S else without_gauges(latest)
            for at, latest in self.latest.values()
        )
