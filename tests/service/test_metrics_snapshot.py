"""Metrics of several endpoint replicas: any of them returns the sum over all."""

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.service.fake import WHITE, Brightness, assert_problem, client_of
from uniemo_ray.service.api.app import make_api
from uniemo_ray.service.api.metrics import Metrics
from uniemo_ray.service.api.metrics_snapshot import (
    MetricsSnapshot,
    merge_snapshots,
    take_snapshot,
    to_prometheus_text,
)
from uniemo_ray.service.backend import UnavailableError
from uniemo_ray.service.metrics_aggregator import GONE_AFTER_S, MetricsAggregator
from uniemo_ray.service.settings import Limits


def numbers(data: bytes) -> dict[str, float]:
    """Value by sample name and labels, as Prometheus reads them."""
    return {
        "|".join([sample.name, *sorted(sample.labels.values())]): sample.value
        for family in text_string_to_metric_families(data.decode())
        for sample in family.samples
    }


def counts(*, requests: int, active: int, seconds: float = 0.2) -> MetricsSnapshot:
    metrics = Metrics()
    metrics.watch(active=lambda: active, unfinished=lambda: 0)
    for _ in range(requests):
        metrics.count_request("/v1/model", "GET", 200, seconds)
    return take_snapshot(metrics.registry)


def test_one_replica_shows_its_own_numbers_unchanged():
    shown = numbers(to_prometheus_text(counts(requests=3, active=2)))
    assert shown["uniemo_requests_total|/v1/model|200|GET"] == 3
    assert shown["uniemo_active_requests"] == 2
    assert not any("created" in name for name in shown)


def test_counters_gauges_and_histograms_add_up():
    both = merge_snapshots(
        [counts(requests=3, active=2, seconds=0.2), counts(requests=1, active=5, seconds=2)]
    )
    shown = numbers(to_prometheus_text(both))
    assert shown["uniemo_requests_total|/v1/model|200|GET"] == 4
    assert shown["uniemo_active_requests"] == 7
    assert shown["uniemo_request_seconds_bucket|/v1/model|0.25"] == 3
    assert shown["uniemo_request_seconds_bucket|+Inf|/v1/model"] == 4
    assert shown["uniemo_request_seconds_sum|/v1/model"] == pytest.approx(2.6)


def test_what_a_replica_counted_stays_when_it_goes_and_what_it_held_open_does_not():
    now = [0.0]
    aggregator = MetricsAggregator(clock=lambda: now[0])
    asyncio.run(aggregator.exchange("old", counts(requests=5, active=4)))
    now[0] = GONE_AFTER_S
    shown = numbers(to_prometheus_text(asyncio.run(aggregator.exchange("new", counts(requests=1, active=1)))))
    assert shown["uniemo_requests_total|/v1/model|200|GET"] == 6
    assert shown["uniemo_active_requests"] == 1


def test_a_replica_counts_once_however_often_it_reports():
    aggregator = MetricsAggregator()
    for requests in (1, 2, 3):
        total = asyncio.run(aggregator.exchange("a", counts(requests=requests, active=0)))
    assert numbers(to_prometheus_text(total))["uniemo_requests_total|/v1/model|200|GET"] == 3


class Shared:
    """Peers that call an aggregator in this process."""

    def __init__(self, name: str, aggregator: MetricsAggregator) -> None:
        self.name, self.aggregator = name, aggregator
        self.is_there = True

    async def exchange(self, counts: MetricsSnapshot) -> MetricsSnapshot:
        if not self.is_there:
            raise UnavailableError("nobody adds up", retry_after_s=2)
        return await self.aggregator.exchange(self.name, counts)


def test_any_endpoint_returns_the_sum_and_never_a_part_of_it(generation_store, monkeypatch):
    monkeypatch.setattr("uniemo_ray.service.api.app.EXCHANGE_INTERVAL_S", 0.01)
    aggregator = MetricsAggregator()
    peers = [Shared(name, aggregator) for name in "ab"]
    first, second = (
        client_of(
            make_api(
                Brightness(generation_store), generation_store=generation_store, limits=Limits(), peers=peer
            )
        )
        for peer in peers
    )
    with first, second:
        for client, count in ((first, 2), (second, 3)):
            for _ in range(count):
                client.post("/v1/understand", content=WHITE, headers={"content-type": "image/png"})
        first.get("/metrics")
        second.get("/metrics")
        shown = numbers(first.get("/metrics").content)
        assert shown["uniemo_requests_total|/v1/understand|200|POST"] == 5
        peers[0].is_there = False
        assert_problem(first.get("/metrics"), 503, "nobody adds up")
