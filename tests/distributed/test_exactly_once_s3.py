# ruff: noqa: F811 (fixtures shared with other tests)
"""The same on a real S3 server: killed and submitted again, damaged, over a bad line."""

import os
import signal
from pathlib import Path

import pytest

from tests.distributed.exactly_once_driver import (  # noqa: F401
    SHARDS,
    assert_sound,
    driver,
    entries,
    environment,
    image_files,
    submit,
    undisturbed,
)
from tests.store.conftest import s3_uri  # noqa: F401
from tests.store.faulty_proxy import faulty_proxy
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.verify import repair_run, verify_run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]


def test_generation_killed_resumed_and_mended(
    environment: dict[str, str], undisturbed: dict[str, str], s3_uri: str, tmp_path: Path
) -> None:
    for point in ("planned", "put", "checked", "mapped"):
        once = {"once": str(tmp_path / point), "driver": True}
        code, output = submit(s3_uri, environment, point=point, fault=once)
        assert code == -signal.SIGKILL, (point, output)
    code, output = submit(s3_uri, environment)
    assert code == 0, output
    store = open_store(s3_uri)
    assert_sound(store)
    assert image_files(store) == undisturbed
    assert "skipped: True" in submit(s3_uri, environment)[1]

    lost = next(key for key in store.list("artefacts") if key.endswith("images/part-00003.parquet"))
    store.delete(lost)
    assert [finding.kind for finding in verify_run(store).findings] == ["missing"]
    repair_run(RunFolder.open(s3_uri, {}))
    code, output = submit(s3_uri, environment)
    assert code == 0, output
    assert_sound(store)
    assert image_files(store) == undisturbed


def test_generation_over_a_bad_line(
    environment: dict[str, str], undisturbed: dict[str, str], s3_uri: str
) -> None:
    """The driver's own requests go through the proxy; its workers inherit the address from the store."""
    with faulty_proxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        faults = {2: "503", 4: "reset", 6: "500"}
        proxy.fault = lambda number: faults.get(number % 11, "")
        code, output = submit(s3_uri, environment | {"AWS_ENDPOINT_URL": proxy.endpoint})
        assert code == 0, output
        assert proxy.faults > SHARDS
    store = open_store(s3_uri)
    assert_sound(store)
    assert image_files(store) == undisturbed
