"""Settings and fixtures of all tests."""

import functools
import os
import re
import secrets
import sys
import time
from pathlib import Path
from typing import Any

import hypothesis
import pytest

hypothesis.settings.register_profile("patient", deadline=None)  # other work on the machine is no failure
hypothesis.settings.load_profile("patient")

_BUCKET = "uniemo-tests"

# Before anything imports a library that reads them.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("DS_ACCELERATOR", os.environ.get("UNIEMO_DEVICE", "cpu"))  # cuda: `make test-gpu`
os.environ["RAY_AUTH_MODE"] = "disabled"  # both sides: tests start their own, private Ray
for _name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
    os.environ.pop(_name, None)  # a developer's cluster is none of the tests' business

CPUS = 2
FREE_WITHIN_S = 15.0


@pytest.hookimpl(optionalhook=True)  # pytest-xdist's, which may be off
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Parallel runs keep together the tests of a file, and the files that share something slow."""
    from xdist.scheduler import LoadScopeScheduling

    starts_processes = "not slow" not in config.getoption("markexpr")

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return _group(path) if starts_processes else path

    return ByGroup(config, log)


@functools.cache
def _group(path: str) -> str:
    """Files of the shared Ray go to one process, those that start clusters of their own to another."""
    text = (Path(__file__).parents[1] / path).read_text()
    if "ray_session" in text:
        return "ray"
    return "processes" if re.search(r"mark\.(ray|integration)", text) else path


def _shares_ray(item: pytest.Item) -> bool:
    return "ray_session" in getattr(item, "fixturenames", ())


@pytest.hookimpl(trylast=True)  # when the fixtures of a module are gone
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """The shared Ray ends when the next module does not ask for it."""
    if nextitem is None or (nextitem.path != item.path and not _shares_ray(nextitem)):
        _stop_ray()


@pytest.fixture(scope="module")
def ray_session() -> None:
    """A local Ray of two CPUs, shared by the modules that ask for it as long as each leaves its CPUs free."""
    import ray

    if ray.is_initialized() and not _has_free_cpus():
        _stop_ray()
    if not ray.is_initialized():
        ray.init(
            address="local",
            num_cpus=CPUS,
            include_dashboard=False,
            object_store_memory=400_000_000,
            log_to_driver=False,
        )


def _has_free_cpus() -> bool:
    """Whether what the last module has left behind gives its CPUs back within some seconds."""
    import ray

    deadline = time.monotonic() + FREE_WITHIN_S
    while ray.available_resources().get("CPU", 0) < CPUS:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _stop_ray() -> None:
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()


@pytest.fixture
def s3_uri(monkeypatch: pytest.MonkeyPatch) -> str:
    """An unused prefix on the server at UNIEMO_TEST_S3_ENDPOINT; AWS_* hold the keys as usual."""
    endpoint = os.environ.get("UNIEMO_TEST_S3_ENDPOINT")
    if not endpoint:
        pytest.skip("UNIEMO_TEST_S3_ENDPOINT is not set: no S3 server to test against")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", os.environ.get("AWS_DEFAULT_REGION", "us-east-1"))
    _make_bucket(endpoint)
    return f"s3://{_BUCKET}/{secrets.token_hex(6)}"


@functools.cache
def _make_bucket(endpoint: str) -> None:
    """Once for all tests: a client takes longer to make than most tests to run."""
    import boto3

    boto3.Session().client("s3", endpoint_url=endpoint).create_bucket(Bucket=_BUCKET)


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.integration)])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of an empty run folder, once on disk and once on S3."""
    return str(tmp_path / "run") if request.param == "local" else str(request.getfixturevalue("s3_uri"))
