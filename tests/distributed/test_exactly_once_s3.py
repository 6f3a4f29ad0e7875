"""The same on a real S3 server: killed and submitted again, damaged, over a bad line, without a line."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.distributed.exactly_once_driver import (
    SHARDS,
    TIMEOUT_S,
    assert_sound,
    begun_shards,
    driver,
    image_files,
    submit,
)
from tests.store.faulty_proxy import FaultyProxy, faulty_proxy
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.verify import repair_run, verify_run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]
GONE_S = 60.0


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


@pytest.mark.parametrize("faults", [("503", "reset", "500"), ("silent",)], ids=["errors", "timeouts"])
def test_generation_over_a_bad_line(
    environment: dict[str, str], undisturbed: dict[str, str], s3_uri: str, faults: tuple[str, ...]
) -> None:
    """The driver's own requests go through the proxy; its workers inherit the address from the store."""
    with faulty_proxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        every = 4 if len(faults) > 1 else 11  # a silent request costs the whole timeout
        proxy.fault = lambda number: faults[number // every % len(faults)] if number % every == 2 else ""
        code, output = submit(s3_uri, over(proxy, environment))
        assert code == 0, output
        assert proxy.faults > SHARDS
    assert_sound(open_store(s3_uri))
    assert image_files(open_store(s3_uri)) == undisturbed


def test_generation_while_the_server_is_gone_for_a_minute(
    environment: dict[str, str], undisturbed: dict[str, str], s3_uri: str, tmp_path: Path
) -> None:
    """It goes while shards are made and comes back by itself; one submission gets through."""
    journal, is_gone = tmp_path / "journal", threading.Event()
    with faulty_proxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        proxy.fault = lambda _: "reset" if is_gone.is_set() else ""
        with driver(s3_uri, over(proxy, environment), delay_s=1.0, journal=str(journal)) as process:
            deadline = time.monotonic() + TIMEOUT_S
            while len(begun_shards(journal)) < 3:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
            is_gone.set()
            threading.Timer(GONE_S, is_gone.clear).start()
            output = process.communicate(timeout=TIMEOUT_S)[0]
        assert "finished (skipped: False)" in output, output
        assert proxy.faults > 0
    assert_sound(open_store(s3_uri))
    assert image_files(open_store(s3_uri)) == undisturbed


def over(proxy: FaultyProxy, environment: dict[str, str]) -> dict[str, str]:
    """Driver and workers behind a proxy, and not too patient with it."""
    patience = {"UNIEMO_S3_TIMEOUT_S": "3"}
    return environment | patience | {"AWS_ENDPOINT_URL": proxy.endpoint, "WORKER_ENV": json.dumps(patience)}
