"""Adds up the numbers of several endpoint replicas; a deployment of its own, when there are several."""

import time
from collections.abc import Callable

from uniemo_ray.service.api.metrics_snapshot import MetricsSnapshot, added, without_gauges

GONE_AFTER_S = 15.0
"""A replica that has not reported for so long has no open requests any more."""


class MetricsAggregator:
    """Knows the last numbers of every endpoint replica since it began, also of those that are gone.

    A counter of an application must not fall because one of its replicas was replaced.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.latest: dict[str, tuple[float, MetricsSnapshot]] = {}

    async def exchange(self, replica: str, counts: MetricsSnapshot) -> MetricsSnapshot:
        """Take a replica's numbers; returns everybody's sum."""
        now = self.clock()
        self.latest[replica] = now, counts
        return added(
            counts if now - at < GONE_AFTER_S else without_gauges(counts)
            for at, counts in self.latest.values()
        )
