"""Two drivers of one run: the second waits for one that its machine cannot see, and goes on from it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from tests.distributed.exactly_once_driver import ROOT, client_environment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
SMALL = (
    *("data.sketch_train=192", "data.sketch_val=16", "data.sketch_test=32", "data.rows_per_shard=64"),
    *("stage1.epochs=4", "stage1.batch_size=16", "stage1.checkpoint_every_s=0.2"),
)
BOOT_ID = "/proc/sys/kernel/random/boot_id"
ELSEWHERE = ("unshare", "--mount", "sh", "-c", f'mount --bind "$0" {BOOT_ID} && exec "$@"')
"""As on another machine, whose start had another number: neither driver looks up the other's process."""


class Driver:
    """One submission of the job `understanding`; its output is read while it runs."""

    def __init__(
        self, run: Path, environment: dict[str, str], *options: str, elsewhere: Path | None = None
    ) -> None:
        sets = [part for value in (f"run={run}", *SMALL) for part in ("--set", value)]
        command = [sys.executable, "jobs/understanding.py", "--config", "demo", *sets, *options]
        self.process = subprocess.Popen(
            command if elsewhere is None else [*ELSEWHERE, str(elsewhere), *command],
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self._lines.extend(self.process.stdout)

    def text(self) -> str:
        return "".join(list(self._lines))

    def wait_for(self, words: str, *, seconds: float = 240) -> None:
        end = time.monotonic() + seconds
        while not re.search(words, self.text()):
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < end, f"no {words!r} in:\n{self.text()}"
            time.sleep(0.2)

    def end(self) -> int:
        code = self.process.wait(timeout=600)
        self._reader.join(timeout=30)
        return code

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=30)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """The number of another machine's start."""
    file = tmp_path / "boot_id"
    file.write_text("00000000-0000-4000-8000-000000000000\n")
    tried = shutil.which("unshare") and subprocess.run([*ELSEWHERE, str(file), "true"], capture_output=True)
    if not tried or tried.returncode != 0:
        pytest.skip("being elsewhere needs root and unshare")
    return file


def test_a_second_driver_waits_for_one_elsewhere_and_finishes_its_run(
    tmp_path: Path, elsewhere: Path
) -> None:
    node = {"num_cpus": 4, "object_store_memory": 200_000_000, "include_dashboard": False}
    cluster, run = Cluster(initialize_head=True, head_node_args=node), tmp_path / "run"
    first = second = None
    try:
        environment = client_environment(cluster)
        first = Driver(run, environment, elsewhere=elsewhere)
        first.wait_for(r"\] understanding\S* \.\.\. started")
        refused = Driver(run, environment)
        assert refused.end() == 1
        (line,) = (line for line in refused.text().splitlines() if line.startswith("error: "))
        assert "is in use by process" in line
        assert first.process.poll() is None

        second = Driver(run, environment, "--wait-for-lease", "300")
        second.wait_for("waiting up to 300 s")
        first.kill()
        assert second.end() == 0, second.text()
        assert "is in use by process" in second.text()  # said while it waited
        assert list((run / "steps").glob("understanding*.json"))
    finally:
        for driver in (first, second):
            if driver is not None and driver.process.poll() is None:
                driver.kill()
        cluster.shutdown()
