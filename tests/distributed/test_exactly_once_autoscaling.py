"""A cluster that grows from no machine to three and shrinks again under a generation."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.distributed.exactly_once_driver import (
    TIMEOUT_S,
    address_environment,
    assert_sound,
    driver,
    image_files,
)
from tools.rehearsal.head import LOOPBACK, autoscaling_head, machines, plain_machines
from uniemo_ray.store.filesystem import open_store

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]
MOST = 3


def test_from_no_machine_to_three_and_back(tmp_path: Path) -> None:
    uri, straight = str(tmp_path / "run"), str(tmp_path / "straight")
    with autoscaling_head(plain_machines(MOST), idle_minutes=0.1) as address:
        environment = address_environment(address) | LOOPBACK
        assert machines(address) == 0
        with driver(uri, environment, actors=MOST, delay_s=4.0) as process:
            wait_for(lambda: machines(address) == MOST)
            assert process.poll() is None, "the generation was over before its machines came"
            output = process.communicate(timeout=TIMEOUT_S)[0]
        assert "finished (skipped: False)" in output, output
        assert "4 nodes" in output, "no machine came while it ran"
        wait_for(lambda: machines(address) == 0)
        # the next run finds none, asks for one, and does not depend on how many there were
        with driver(straight, environment, actors=1) as process:
            output = process.communicate(timeout=TIMEOUT_S)[0]
        assert "finished (skipped: False)" in output, output
    for made in (uri, straight):
        assert_sound(open_store(made))
    assert image_files(open_store(uri)) == image_files(open_store(straight))


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.3)
