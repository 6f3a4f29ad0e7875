"""Snapshots of Prometheus metrics, which endpoint replicas exchange and add up."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector

CREATED = "_created"
"""Suffix of a sample that holds the creation time of a counter. It has no meaning for a sum."""


class MetricSample(NamedTuple):
    """One value of a metric family."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


class MetricFamily(NamedTuple):
    """A counter, gauge or histogram, with the values of all its labels."""

    name: str
    help: str
    kind: str
    samples: tuple[MetricSample, ...]


MetricsSnapshot = tuple[MetricFamily, ...]


class Peers(Protocol):
    """The other endpoint replicas of an application."""

    async def exchange(self, snapshot: MetricsSnapshot) -> MetricsSnapshot:
        """Report this replica's snapshot; returns the sum over all replicas. Raises UnavailableError."""


def take_snapshot(registry: CollectorRegistry) -> MetricsSnapshot:
    """Copy all metrics of a registry."""
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


def merge_snapshots(snapshots: Iterable[MetricsSnapshot]) -> MetricsSnapshot:
    """Add up snapshots by family and label, in the order in which families first appear.

    Buckets of a histogram are cumulative, so they can be added like counters.
    """
    heads: dict[str, MetricFamily] = {}
    sums: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for family in (family for snapshot in snapshots for family in snapshot):
        heads.setdefault(family.name, family)
        values = sums.setdefault(family.name, {})
        for name, labels, value in family.samples:
            values[name, labels] = values.get((name, labels), 0.0) + value
    return tuple(
        heads[family]._replace(samples=tuple(MetricSample(*key, value) for key, value in values.items()))
        for family, values in sums.items()
    )


def without_gauges(snapshot: MetricsSnapshot) -> MetricsSnapshot:
    """The snapshot of a replica that is gone: its counters remain, its gauges do not."""
    return tuple(family for family in snapshot if family.kind != "gauge")


def to_prometheus_text(snapshot: MetricsSnapshot) -> bytes:
    """The text format of Prometheus."""
    registry = CollectorRegistry()
    registry.register(_SnapshotCollector(snapshot))
    return generate_latest(registry)


class _SnapshotCollector(Collector):
    """Gives Prometheus the values of a snapshot."""

    def __init__(self, families: Sequence[MetricFamily]) -> None:
        self.families = families

    def collect(self) -> Iterable[Metric]:
        for name, help_, kind, samples in self.families:
            metric = Metric(name, help_, kind)
            for sample in samples:
                metric.add_sample(sample.name, dict(sample.labels), sample.value)
            yield metric
