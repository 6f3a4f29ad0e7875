"""Settings and fixtures of all tests."""

import os
from collections.abc import Iterator

import pytest

# Before anything imports a library that reads them.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ["RAY_AUTH_MODE"] = "disabled"  # both sides: tests start their own, private Ray
for _name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
    os.environ.pop(_name, None)  # a developer's cluster is none of the tests' business


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Parallel runs keep a file together, and all that start processes; GPU tests need a GPU."""
    for item in items:
        starts_processes = any(map(item.get_closest_marker, ("ray", "slow", "integration")))
        item.add_marker(pytest.mark.xdist_group("processes" if starts_processes else item.path.as_posix()))
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_items:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="no GPU on this machine"))


@pytest.fixture(scope="module")
def ray_session() -> Iterator[None]:
    """A local Ray of two CPUs for the tests of one module: what one leaves behind costs no other a CPU."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=400_000_000,
        log_to_driver=False,
    )
    yield
    ray.shutdown()
