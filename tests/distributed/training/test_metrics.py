"""The metrics of training and of actors, scraped from a real Ray head."""

import time
import urllib.request
from collections.abc import Iterator

import pytest
import ray

from uniemo_ray.distributed.shards.progress import WorkerMetrics
from uniemo_ray.distributed.shards.report import ShardReport
from uniemo_ray.distributed.training.metrics import WINDOW_S, StageGauges

pytestmark = [pytest.mark.ray, pytest.mark.slow]
NAMES = ("step", "steps_total", "loss", "images_per_second", "learning_rate_factor", "checkpoint_seconds")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where the head shows its metrics."""
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    (node,) = ray.nodes()
    yield f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    ray.shutdown()


@ray.remote(num_cpus=0)
class Rank:
    """A worker with the gauges of a stage, and an actor with those of a step."""

    def __init__(self) -> None:
        self.now = 0.0
        self.gauges = StageGauges("joint-1", total_steps=40, batch_size=8, clock=lambda: self.now)
        self.shards = WorkerMetrics("generate-1")

    def work(self) -> None:
        for step in range(1, 5):
            self.gauges.write({"step/loss": 1 / step, "step/lr_factor": 0.5}, step=step)
            self.now += 2.0
        self.gauges.write({"epoch/loss": 99.0}, step=4)
        self.gauges.checkpoint(1.5)
        self.shards.count(ShardReport("a", rows=3), seconds=2.0)


def scrape(address: str) -> dict[str, float]:
    with urllib.request.urlopen(address, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[:1] != "#"}


def test_a_scrape_shows_a_stage_and_its_shards(address: str) -> None:
    rank = Rank.remote()
    ray.get(rank.work.remote())
    found: dict[str, float] = {}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        seen = scrape(address)
        found = {
            key.partition("{")[0]: value
            for key, value in seen.items()
            if 'stage="joint-1"' in key or 'step="generate-1"' in key
        }
        if "ray_uniemo_train_step" in found and "ray_uniemo_shard_seconds_sum" in found:
            break
        time.sleep(1)
    expected = dict(zip(NAMES, (4, 40, 0.25, 4.0, 0.5, 1.5), strict=True))
    assert {name: found.get(f"ray_uniemo_train_{name}") for name in NAMES} == expected
    assert (found["ray_uniemo_shard_seconds_sum"], found["ray_uniemo_shard_seconds_count"]) == (2.0, 1.0)
    assert WINDOW_S > 6  # the rate above is over all steps: 3 of 8 images in 6 seconds
