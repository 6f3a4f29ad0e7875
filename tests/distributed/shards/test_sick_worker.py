"""Pools with real actors, of which one accelerator, or one node, is broken. Their cluster is their own."""

import logging
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
import ray
from ray.cluster_utils import Cluster

from benchmarks.sick_actor import SickActor, When
from uniemo_ray.distributed.shards.health import NoActorError
from uniemo_ray.distributed.shards.map_shards import map_shards
from uniemo_ray.pools import Pool
from uniemo_ray.store.base import Store
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import commit_shard, committed, read_shards

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SHARDS, SECONDS = 30, 0.2
PATIENCE_S = 120.0


class SickOrPatientActor(SickActor):
    """A sound one waits for the first load of the broken one, and does not make all shards before it."""

    def __init__(self, when: When, folder: str, seconds: float, device: str) -> None:
        super().__init__(when, folder, seconds, device)
        self.loads = Path(folder) / "loads"

    def __call__(self, table: pa.Table) -> pa.Table:
        deadline = time.monotonic() + PATIENCE_S
        while not self.loads.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        return super().__call__(table)


@pytest.fixture(scope="module")
def places() -> Iterator[dict[str, str]]:
    """A node with two accelerators and one with one, which are numbers only; what can be broken of them."""
    node = {"object_store_memory": 100_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "num_cpus": 2, "num_gpus": 2})
    try:
        other = cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=100_000_000)
        ray.init(address=cluster.address, log_to_driver=False)
        yield {"accelerator": f"{cluster.head_node.node_id} 0", "node": f"{other.node_id} any"}
    finally:
        ray.shutdown()
        cluster.shutdown()


def step(folder: Path, when: When, place: str) -> Store:
    """A step without any retry of a shard."""
    store = open_store(str(folder))
    (folder / "broken").write_text(place)
    for number in range(SHARDS):
        commit_shard(store, f"in/part-{number:05d}", pa.table({"x": [number]}), plan_hash="p")
    map_shards(
        store,
        {"out": "in"},
        target=store,
        actor=partial(SickOrPatientActor, when, str(folder), SECONDS),
        plan_hash=None,
        pool=Pool(actors=3, min_actors=3, memory_gb=0.1, gpus=1),
        retries=0,
    )
    return store


@pytest.mark.parametrize(
    ("what", "when"),
    [("accelerator", "start"), ("accelerator", "later"), ("accelerator", "load"), ("node", "start")],
)
def test_what_is_broken_costs_no_shard(places: dict[str, str], tmp_path: Path, what: str, when: When) -> None:
    """What it was to make is made by others, and no shard has tried twice."""
    store = step(tmp_path, when, places[what])
    assert (tmp_path / "loads").exists()  # it was broken
    assert read_shards(store, "out/")["x"].to_pylist() == list(range(SHARDS))
    assert {entry.attempt for entry in committed(store, "out/").values()} == {1}
    assert store.is_empty("health")
    assert store.is_empty("attempts")


def test_a_pool_that_cannot_start_names_the_nodes_once_and_the_reason(
    places: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = r"^no actor of the pool can start: \d+ starts failed, .*node \w+\): CUDA error: uncorrectable ECC"
    with caplog.at_level(logging.WARNING, "uniemo_ray"), pytest.raises(NoActorError, match=text):
        step(tmp_path, "all", places["node"])
    named = [
        record.getMessage() for record in caplog.records if "no more actors start" in record.getMessage()
    ]
    nodes = {place.split()[0] for place in places.values()}
    assert len(named) == len(nodes)
    assert all(any(f"node {node})" in line for line in named) for node in nodes)
