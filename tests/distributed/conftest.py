"""A raylet for drivers that are killed, and what an undisturbed run leaves behind."""

from collections.abc import Iterator

import pytest
from ray.cluster_utils import Cluster

from tests.distributed.exactly_once_driver import (
    SHARDS,
    assert_sound,
    client_environment,
    image_files,
    submit,
)
from uniemo_ray.store.filesystem import open_store


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """What a driver needs to reach a raylet of our own, which outlives it."""
    # room for the actors of two drivers: those of a stopped one stay where they are
    node = {"num_cpus": 4, "object_store_memory": 100_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        yield client_environment(cluster)
    finally:
        cluster.shutdown()


@pytest.fixture(scope="module")
def undisturbed(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Image shards of a run that nothing happens to, by hash."""
    uri = str(tmp_path_factory.mktemp("undisturbed") / "run")
    code, output = submit(uri, environment)
    assert code == 0, output
    assert "finished (skipped: False)" in output
    assert_sound(open_store(uri))
    files = image_files(open_store(uri))
    assert len(files) == SHARDS
    return files
