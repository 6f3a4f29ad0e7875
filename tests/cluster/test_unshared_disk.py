"""A machine that does not see the run folder is named before anything starts."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from tests.distributed.exactly_once_driver import ROOT, client_environment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
RAY = str(Path(sys.executable).with_name("ray"))
MOUNTS = ("unshare", "--mount", "--kill-child", "sh", "-c")


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A head, and a machine whose `disk` folder is its own; gives what leads a driver to them."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs tmpfs '{disk}'"
    tried = shutil.which("unshare") and subprocess.run([*MOUNTS, mount], capture_output=True)
    if not tried or tried.returncode != 0:
        pytest.skip("a disk of one's own needs root and unshare")
    node = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    start = f"exec '{RAY}' start --address={cluster.address} --num-cpus=3 --block --disable-usage-stats"
    machine = subprocess.Popen(
        [*MOUNTS, f"{mount} && {start}"], env=dict(os.environ), start_new_session=True, cwd=tmp_path
    )
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        end = time.monotonic() + 60
        while sum(node["Alive"] for node in ray.nodes()) < 2:
            assert time.monotonic() < end, "the second machine did not come"
            time.sleep(0.2)
        ray.shutdown()
        yield client_environment(cluster)
    finally:
        ray.shutdown()
        os.killpg(machine.pid, signal.SIGTERM)
        machine.wait(timeout=60)
        cluster.shutdown()


def test_the_machine_and_the_folder_are_named_in_one_line(apart: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "disk" / "run"
    sets = [part for value in (f"run={run}", "data.sketch_train=64") for part in ("--set", value)]
    done = subprocess.run(
        [sys.executable, "jobs/feedback_loop.py", "--config", "demo", *sets],
        cwd=ROOT,
        env=apart,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = (line for line in (done.stdout + done.stderr).splitlines() if "error: " in line)
    assert f"does not see run {run}: use a shared disk, or an s3:// address" in line
    assert not (run / "artefacts").exists()
    assert not (run / "steps").exists()
