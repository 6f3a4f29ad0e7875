"""Machines that leave under a generation: killed and replaced, or with notice as spot instances do."""

import subprocess
import sys
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
RAY = str(Path(sys.executable).with_name("ray"))
NOTICE_S = 4


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


@pytest.mark.parametrize("is_told", [False, True], ids=["killed", "preempted"])
def test_a_machine_goes_and_is_replaced(cluster: Cluster, tmp_path: Path, *, is_told: bool) -> None:
    environment = client_environment(cluster)
    straight, uri = str(tmp_path / "straight"), str(tmp_path / "run")
    with driver(straight, environment, actors=3) as process:
        assert "finished (skipped: False)" in process.communicate(timeout=TIMEOUT_S)[0]
    with driver(uri, environment, actors=3, delay_s=4.0) as process:
        store = open_store(uri)
        deadline = time.monotonic() + TIMEOUT_S
        while not store.list("artefacts") or len(entries(store)) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        leaving = cluster.list_all_nodes()[-1]
        if is_told:
            give_notice(leaving.node_id, environment)
            time.sleep(NOTICE_S)
        assert process.poll() is None
        cluster.remove_node(leaving, allow_graceful=False)
        cluster.add_node(**NODE)
        output = process.communicate(timeout=TIMEOUT_S)[0]
        assert "finished (skipped: False)" in output, output
    assert_sound(store)
    assert image_files(store) == image_files(open_store(straight))


def give_notice(node_id: str, environment: dict[str, str]) -> None:
    """What a cloud's interruption notice makes of a node."""
    reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot instance taken back"]
    command = [RAY, "drain-node", "--address", environment["RAY_ADDRESS"], "--node-id", node_id, *reason]
    subprocess.run([*command, "--deadline-remaining-seconds", str(NOTICE_S)], check=True, env=environment)
