"""What Prometheus reads of a run."""

import re
import socket
import time
import urllib.request
from collections.abc import Iterator

import pytest
import ray

from tests.distributed.exactly_once_case import generate
from uniemo_ray.store.filesystem import open_store

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture
def port() -> Iterator[int]:
    """Where a Ray of our own exports its metrics."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = int(server.getsockname()[1])
    settings = {"metrics_report_interval_ms": 1000}
    ray.init(
        address="local", num_cpus=2, _metrics_export_port=free, _system_config=settings, log_to_driver=False
    )
    yield free
    ray.shutdown()


def read(port: int) -> dict[str, float]:
    """Sums over all processes, by metric and emotion."""
    found: dict[str, float] = {}
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("ray_uniemo_"):
                emotion = re.search(r'emotion="(\w+)"', line)
                name = line.partition("{")[0] + (f" {emotion[1]}" if emotion else "")
                found[name] = found.get(name, 0.0) + float(line.rpartition(" ")[2])
    return found


def test_counts_and_gauges_are_exported(port: int, tmp_path) -> None:
    store = open_store(str(tmp_path))
    generate(store, n=3, retries=1, raising="r1-emotion-awe-00001")
    expected = {
        "ray_uniemo_rows_total awe": 2.0,
        "ray_uniemo_rows_total fear": 3.0,
        "ray_uniemo_failed_rows_total": 1.0,
        "ray_uniemo_shards_total": 6.0,
        "ray_uniemo_failed_shards_total": 1.0,
        "ray_uniemo_shards_left": 0.0,
        "ray_uniemo_eta_seconds": 0.0,
    }
    deadline = time.monotonic() + 120
    while {name: read(port).get(name) for name in expected} != expected:
        assert time.monotonic() < deadline, read(port)
        time.sleep(1)
    assert read(port)["ray_uniemo_cost"] > 0
