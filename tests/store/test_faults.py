"""A driver is killed at every point of the commit protocol: submitting again ends as if it never was."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from uniemo_ray.store.errors import RunLockedError
from uniemo_ray.store.faults import POINTS, VARIABLE
from uniemo_ray.store.filesystem import Store, open_store
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.verify import verify_run

HERE = ("made", "staged", "put", "checked", "listed", "recorded")
"""Points that a single process passes; the others are in the driver of a pool."""
DRIVER = """
import sys
import pyarrow as pa
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.shards import commit_shard, seal_manifest
from uniemo_ray.store.steps import Pipeline, StepOutput

def work(context):
    seal_manifest(context.artefacts)
    for k in range(8):
        rows = pa.table({"image_id": [f"{k}-{i}" for i in range(3)], "x": [k, k, k]})
        commit_shard(context.artefacts, f"images/part-{k:05d}", rows, plan_hash="p")
        print(k, flush=True)
    return StepOutput()

try:
    run = RunFolder.open(sys.argv[1], {}, ttl_s=float(sys.argv[2]))
    pipeline = Pipeline(run)
    pipeline.step("generate", run=work)
    pipeline.run()
    print("finished", flush=True)
except RuntimeError as error:
    print(f"{type(error).__name__}: {error}", flush=True)
"""


def environment(**fault: object) -> dict[str, str]:
    return os.environ | ({VARIABLE: json.dumps(fault)} if fault else {})


def submit(uri: str, **fault: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", DRIVER, uri, "60"]
    return subprocess.run(command, env=environment(**fault), capture_output=True, text=True, timeout=120)


@contextmanager
def driver(uri: str, *, ttl_s: float, **fault: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", DRIVER, uri, f"{ttl_s}"]
    with subprocess.Popen(command, env=environment(**fault), stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def contents(store: Store) -> dict[str, str]:
    """Hashes of all files of all steps."""
    return {key: hashlib.sha256(store.read_bytes(key)).hexdigest() for key in store.list("artefacts")}


def images(store: Store) -> dict[str, str]:
    return {
        key: digest
        for key, digest in contents(store).items()
        if "/images/" in key and "/manifest/" not in key
    }


def wait_until_stopped(pid: int) -> None:
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_killed_at_every_point(uri: str, tmp_path: Path) -> None:
    assert set(HERE) < set(POINTS)
    for point in HERE:
        if point == "staged" and uri.startswith("s3://"):
            continue  # S3 has no temporary names: a put is there whole or not at all
        # "staged" is passed by the lease and the run's marker first: they are to survive it as well
        killed = submit(uri, point=point, skip=1 if point != "recorded" else 0, once=str(tmp_path / point))
        assert killed.returncode == -signal.SIGKILL, (point, killed.stdout, killed.stderr)
    assert submit(uri).stdout.endswith("finished\n")
    store = open_store(uri)
    report = verify_run(store)
    assert (report.findings, report.tally.shards, report.tally.rows) == ((), 8, 24)
    undisturbed = str(tmp_path / "undisturbed")
    submit(undisturbed)
    assert images(store) == images(open_store(undisturbed)) != {}


@pytest.mark.slow
def test_a_late_commit_of_a_superseded_driver_changes_nothing(uri: str, tmp_path: Path) -> None:
    """The first driver stops between its look at the lease and its manifest entry, and wakes too late."""
    with driver(uri, ttl_s=2, point="checked", skip=2, signal="STOP") as late:
        wait_until_stopped(late.pid)
        second = submit(uri)
        assert second.stdout.endswith("finished\n"), second.stdout
        store = open_store(uri)
        before = contents(store)
        late.send_signal(signal.SIGCONT)
        said = late.communicate(timeout=60)[0]
        assert "SupersededError: another driver has taken over" in said
        assert "finished" not in said
        assert contents(store) == before
    report = verify_run(store)
    assert (report.findings, report.tally.rows) == ((), 24)


@pytest.mark.slow
def test_a_late_entry_before_the_new_drivers_own_is_not_taken(uri: str, tmp_path: Path) -> None:
    """The first driver wakes while the second has sealed the folder, but not reached that shard."""
    with driver(uri, ttl_s=2, point="checked", skip=2, signal="STOP") as late:
        wait_until_stopped(late.pid)
        with driver(uri, ttl_s=60, point="made", signal="STOP", once=str(tmp_path / "once")) as second:
            wait_until_stopped(second.pid)
            late.send_signal(signal.SIGCONT)
            assert "SupersededError" in late.communicate(timeout=60)[0]
            store = open_store(uri)
            folder = store.sub(store.list("artefacts")[0].partition("/images/")[0])
            assert folder.exists("manifest/images/part-00002.json"), "the late entry was not written"
            assert "sealed/00000002.parquet" in folder.list("sealed")
            second.send_signal(signal.SIGCONT)
            assert second.communicate(timeout=60)[0].endswith("finished\n")
    entries = {key: folder.read_json(key)["epoch"] for key in folder.list("manifest")}
    assert list(entries.values()) == [1, 1] + 6 * [2]
    assert verify_run(store).findings == ()


def test_a_second_driver_is_refused_while_the_first_breathes(uri: str) -> None:
    run = RunFolder.open(uri, {})
    with run.locked():
        assert "RunLockedError" in submit(uri).stdout
    with RunFolder.open(uri, {}).locked(), pytest.raises(RunLockedError):
        run.lease.acquire()
