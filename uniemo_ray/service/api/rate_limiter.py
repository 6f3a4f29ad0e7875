"""Limits of requests per minute and of concurrent requests, per caller."""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from uniemo_ray.service.api.problems import ProblemError
from uniemo_ray.service.settings import RETRY_AFTER_S, Limits

MOST_BUCKETS = 10_000
"""Most callers that are remembered. Whoever has been silent for longest is forgotten."""


@dataclass
class _Bucket:
    """A token bucket: the requests that a caller has left, refilled at a constant rate."""

    left: float
    at: float


class RateLimiter:
    """Counts the requests of one endpoint replica. Callers are names of tokens, or addresses."""

    def __init__(self, limits: Limits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits, self.clock = limits, clock
        self.burst = max(1.0, limits.requests_per_minute / 4)
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._open: Counter[str] = Counter()

    @contextmanager
    def request(self, caller: str) -> Iterator[None]:
        """Count one request as open while the block runs.

        Raises:
            ProblemError: 429 for a limit of the caller, 503 for a limit of the replica.
        """
        self.take(caller)
        if self._open.total() >= self.limits.active_requests:
            raise ProblemError(503, "the server has too many open requests", retry_after_s=RETRY_AFTER_S)
        if self._open[caller] >= self.limits.concurrent_requests:
            raise ProblemError(
                429,
                f"more than {self.limits.concurrent_requests} requests at once",
                retry_after_s=RETRY_AFTER_S,
            )
        self._open[caller] += 1
        try:
            yield
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]

    @property
    def active(self) -> int:
        """Number of open requests."""
        return self._open.total()

    def take(self, caller: str) -> None:
        """Count one request. Raises ProblemError 429 when the caller has none left."""
        now, per_s = self.clock(), self.limits.requests_per_minute / 60
        bucket = self._buckets.setdefault(caller, _Bucket(self.burst, now))
        self._buckets.move_to_end(caller)
        if len(self._buckets) > MOST_BUCKETS:
            self._buckets.popitem(last=False)
        bucket.left = min(self.burst, bucket.left + (now - bucket.at) * per_s)
        bucket.at = now
        if bucket.left < 1:
            raise ProblemError(
                429,
                f"more than {self.limits.requests_per_minute} requests per minute",
                retry_after_s=(1 - bucket.left) / per_s,
            )
        bucket.left -= 1
