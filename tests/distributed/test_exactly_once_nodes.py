"""Machines that leave under a generation: one of three raylets is killed and replaced."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from tests.distributed.exactly_once_driver import (
    TIMEOUT_S,
    assert_sound,
    client_environment,
    driver,
    entries,
    image_files,
)
from uniemo_ray.store.filesystem import open_store

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]
NODE = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head without CPUs and three machines with one each."""
    made = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0})
    try:
        for _ in range(3):
            made.add_node(**NODE)
        yield made
    finally:
        made.shutdown()


def test_a_machine_is_killed_and_replaced(cluster: Cluster, tmp_path: Path) -> None:
    environment = client_environment(cluster)
    straight, uri = str(tmp_path / "straight"), str(tmp_path / "run")
    with driver(straight, environment, actors=3) as process:
        assert "finished (skipped: False)" in process.communicate(timeout=TIMEOUT_S)[0]
    with driver(uri, environment, actors=3, delay_s=2.0) as process:
        store = open_store(uri)
        deadline = time.monotonic() + TIMEOUT_S
        while not store.list("artefacts") or len(entries(store)) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
        cluster.add_node(**NODE)
        output = process.communicate(timeout=TIMEOUT_S)[0]
        assert "finished (skipped: False)" in output, output
    assert_sound(store)
    assert image_files(store) == image_files(open_store(straight))
