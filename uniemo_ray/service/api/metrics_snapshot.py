"""Prometheus numbers that travel between endpoint replicas, and what they add up to."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector

CREATED = "_created"
"""When a counter began: means nothing for a sum."""


class MetricSample(NamedTuple):
    """One number of a family."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


class MetricFamily(NamedTuple):
    """A counter, gauge or histogram with all its labels."""

    name: str
    help: str
    kind: str
    samples: tuple[MetricSample, ...]


MetricsSnapshot = tuple[MetricFamily, ...]


class Peers(Protocol):
    """The other endpoint replicas of an application."""

    async def exchange(self, counts: MetricsSnapshot) -> MetricsSnapshot:
        """Hand in this replica's numbers; returns the sum of everybody's. Raises UnavailableError."""


def read(registry: CollectorRegistry) -> MetricsSnapshot:
    """All numbers of a registry."""
    return tuple(
        MetricFamily(
            family.name,
            family.documentation,
            family.type,
            tuple(
                MetricSample(sample.name, tuple(sorted(sample.labels.items())), sample.value)
                for sample in family.samples
                if not sample.name.endswith(CREATED)
            ),
        )
        for family in registry.collect()
    )


def added(everybody: Iterable[MetricsSnapshot]) -> MetricsSnapshot:
    """The sums, family by family and label by label, in the order in which they first appear.

    Buckets of a histogram are cumulative, so they add up like counters.
    """
    heads: dict[str, MetricFamily] = {}
    sums: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for family in (family for counts in everybody for family in counts):
        heads.setdefault(family.name, family)
        mine = sums.setdefault(family.name, {})
        for name, labels, value in family.samples:
            mine[name, labels] = mine.get((name, labels), 0.0) + value
    return tuple(
        heads[family]._replace(samples=tuple(MetricSample(*key, value) for key, value in mine.items()))
        for family, mine in sums.items()
    )


def without_gauges(counts: MetricsSnapshot) -> MetricsSnapshot:
    """What stays of a replica that is gone: what happened, not how things are."""
    return tuple(family for family in counts if family.kind != "gauge")


def text(counts: MetricsSnapshot) -> bytes:
    """Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Fixed(counts))
    return generate_latest(registry)


class _Fixed(Collector):
    """Numbers as they are."""

    def __init__(self, counts: Sequence[MetricFamily]) -> None:
        self.counts = counts

    def collect(self) -> Iterable[Metric]:
        for name, help_, kind, samples in self.counts:
            metric = Metric(name, help_, kind)
            for sample in samples:
                metric.add_sample(sample.name, dict(sample.labels), sample.value)
            yield metric
