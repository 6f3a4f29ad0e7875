"""What Prometheus reads at `/metrics`: the numbers of this endpoint replica, or of all if there are several.

Ray's own metrics port has every replica's queues, batch sizes and latencies.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from uniemo_ray.service.api.metrics_snapshot import MetricsSnapshot, Peers, read, text
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
            "uniemo_request_seconds", "Time to the end of the answer.", ["route"], buckets=SECONDS, **options
        )
        self._active = Gauge("uniemo_active_requests", "Open requests.", **options)
        self._unfinished = Gauge("uniemo_unfinished_generations", "Generations queued or at work.", **options)
        self._waiting = Gauge(
            "uniemo_images_in_progress", "Images that wait for a model or are worked on.", ["work"], **options
        )
        for work in (UNDERSTAND, GENERATE):
            self._waiting.labels(work)  # 0 before the first request
        self._images = Counter(
            "uniemo_images",
            "Images by likeliest (understood) or heaviest (generated) emotion.",
            ["work", "emotion"],
            **options,
        )
        self._batches = Histogram(
            "uniemo_batch_images", "Images worked on together.", ["work"], buckets=BATCHES, **options
        )

    def watch(self, *, active: Any, unfinished: Any) -> None:
        """Functions that tell the numbers of open requests and unfinished generations."""
        self._active.set_function(active)
        self._unfinished.set_function(unfinished)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a finished request; status 0 means that the caller went away."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    @contextmanager
    def working(self, work: str, images: int) -> Iterator[None]:
        """Count images as in progress, for the length of the block."""
        gauge = self._waiting.labels(work)
        gauge.inc(images)
        try:
            yield
        finally:
            gauge.dec(images)

    def understood(self, results: Iterable[ImageOutput | Refusal]) -> None:
        """Count images that were understood."""
        for result in results:
            if isinstance(result, ImageOutput):
                self._images.labels(UNDERSTAND, result.result.top).inc()
                self._batches.labels(UNDERSTAND).observe(result.batch)

    def painted(self, emotions: Mapping[str, float], batches: Sequence[int]) -> None:
        """Count images that were generated, by the number of those painted together with each."""
        for batch in batches:
            self._batches.labels(GENERATE).observe(batch)
        heaviest = max(emotions, key=lambda name: emotions[name])
        self._images.labels(GENERATE, heaviest).inc(len(batches))

    async def exchange(self) -> MetricsSnapshot:
        """Everybody's numbers, after handing in our own. Raises UnavailableError."""
        ours = read(self.registry)
        return ours if self.peers is None else await self.peers.exchange(ours)

    async def text(self) -> bytes:
        """All numbers in Prometheus' text format. Raises UnavailableError."""
        return text(await self.exchange())
