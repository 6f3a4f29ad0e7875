"""Metrics for Prometheus at `/metrics`, summed over all endpoint replicas.

Ray's own metrics port has the queues, batch sizes and latencies of every replica.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from uniemo_ray.service.api.metrics_snapshot import MetricsSnapshot, Peers, take_snapshot, to_prometheus_text
from uniemo_ray.service.backend import ImageOutput, Refusal

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
UNDERSTAND, GENERATE = "understand", "generate"
"""Kinds of work."""


class Metrics:
    """Counters of one endpoint replica, in a registry of their own."""

    def __init__(self, peers: Peers | None = None) -> None:
        self.peers = peers
        self.registry = CollectorRegistry()
        options: dict[str, Any] = {"registry": self.registry}
        self._requests = Counter(
            "uniemo_requests", "Finished requests.", ["route", "method", "status"], **options
        )
        self._seconds = Histogram(
            "uniemo_request_seconds",
            "Seconds until the end of the response.",
            ["route"],
            buckets=SECONDS,
            **options,
        )
        self._active = Gauge("uniemo_active_requests", "Open requests.", **options)
        self._unfinished = Gauge(
            "uniemo_unfinished_generations", "Queued and running generations.", **options
        )
        self._in_progress = Gauge(
            "uniemo_images_in_progress",
            "Images that wait for a model or are processed by one.",
            ["work"],
            **options,
        )
        for work in (UNDERSTAND, GENERATE):
            self._in_progress.labels(work)  # shown as 0 before the first request
        self._images = Counter(
            "uniemo_images",
            "Images by their most probable (understand) or heaviest (generate) emotion.",
            ["work", "emotion"],
            **options,
        )
        self._batches = Histogram(
            "uniemo_batch_images", "Images per batch.", ["work"], buckets=BATCHES, **options
        )

    def watch(self, *, active: Any, unfinished: Any) -> None:
        """Read the numbers of open requests and unfinished generations from these functions."""
        self._active.set_function(active)
        self._unfinished.set_function(unfinished)

    def count_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a finished request. Status 0 means that the caller left."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    @contextmanager
    def in_progress(self, work: str, images: int) -> Iterator[None]:
        """Count images as in progress while the block runs."""
        gauge = self._in_progress.labels(work)
        gauge.inc(images)
        try:
            yield
        finally:
            gauge.dec(images)

    def count_understood(self, results: Iterable[ImageOutput | Refusal]) -> None:
        """Count the images that were understood."""
        for result in results:
            if isinstance(result, ImageOutput):
                self._images.labels(UNDERSTAND, result.result.top).inc()
                self._batches.labels(UNDERSTAND).observe(result.batch)

    def count_generated(self, emotions: Mapping[str, float], batches: Sequence[int]) -> None:
        """Count generated images, given the batch size of each."""
        for batch in batches:
            self._batches.labels(GENERATE).observe(batch)
        heaviest = max(emotions, key=lambda name: emotions[name])
        self._images.labels(GENERATE, heaviest).inc(len(batches))

    async def exchange(self) -> MetricsSnapshot:
        """Report this replica's snapshot; returns the sum over all replicas. Raises UnavailableError."""
        snapshot = take_snapshot(self.registry)
        return snapshot if self.peers is None else await self.peers.exchange(snapshot)

    async def text(self) -> bytes:
        """The metrics of all replicas in the text format of Prometheus. Raises UnavailableError."""
        return to_prometheus_text(await self.exchange())
