"""Drivers, actors and disks that fail under a generation: the same bytes, each once, nothing lost."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.distributed.exactly_once_driver import (
    IMAGES,
    SHARDS,
    TIMEOUT_S,
    assert_sound,
    begun_shards,
    driver,
    entries,
    image_files,
    made,
    submit,
)
from tests.store.skewed_clock import skewed_clock
from uniemo_ray.store.base import Store
from uniemo_ray.store.faults import POINTS
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.shards import ShardEntry, read_shards
from uniemo_ray.store.verify import repair_run, verify_run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]


def test_the_driver_is_killed_at_every_point(
    environment: dict[str, str], undisturbed: dict[str, str], tmp_path: Path
) -> None:
    uri = str(tmp_path / "run")
    before: dict[str, ShardEntry] = {}
    for point in POINTS:
        once = {"once": str(tmp_path / point), "driver": True}
        code, output = submit(uri, environment, point=point, fault=once)
        assert code == -signal.SIGKILL, (point, output)
        after = entries(open_store(uri))
        assert {name: after[name] for name in before} == before, "a committed shard was made again"
        before = after
    code, output = submit(uri, environment)
    assert "finished (skipped: True)" in output, output
    assert_sound(open_store(uri))
    assert image_files(open_store(uri)) == undisturbed


@pytest.mark.parametrize("point", ["made", "put", "listed"])
def test_an_actor_is_killed(
    environment: dict[str, str], undisturbed: dict[str, str], tmp_path: Path, point: str
) -> None:
    uri = str(tmp_path / "run")
    code, output = submit(uri, environment, point=point, fault={"once": str(tmp_path / "once"), "skip": 1})
    assert code == 0, output
    assert (tmp_path / "once").exists()
    assert_sound(open_store(uri))
    assert image_files(open_store(uri)) == undisturbed
    attempts = sorted(entry.attempt for entry in entries(open_store(uri)).values())
    assert attempts == [1] * SHARDS if point == "listed" else [*[1] * (SHARDS - 1), 2]


def test_poisoned_rows_become_rows_with_a_reason(
    environment: dict[str, str], undisturbed: dict[str, str], tmp_path: Path
) -> None:
    uri = str(tmp_path / "run")
    poison = {"deadly": "r1-emotion-awe-00001", "raising": "r1-emotion-fear-00003"}
    code, output = submit(uri, environment, retries=1, **poison)
    assert code == 0, output
    assert "finished with 2 failures" in output
    store = open_store(uri)
    assert_sound(store)
    rows = read_shards(made(store), "images/", columns=["image_id", "image", "reason"]).to_pylist()
    failed = {row["image_id"]: row["reason"] for row in rows if row["image"] is None}
    assert failed == {
        poison["deadly"]: "killed 2 processes",
        poison["raising"]: "RuntimeError: cannot be painted",
    }
    same = [key for key, digest in image_files(store).items() if undisturbed[key] == digest]
    assert len(same) == SHARDS - 2


def test_two_drivers_at_once(environment: dict[str, str], undisturbed: dict[str, str], uri: str) -> None:
    with driver(uri, environment, delay_s=0.5) as first:
        assert first.stdout is not None
        while "locked" not in first.stdout.readline():
            assert first.poll() is None
        code, output = submit(uri, environment)
        assert code == 1
        assert "error: RunLockedError" in output
        assert "finished" in first.communicate(timeout=TIMEOUT_S)[0]
    assert_sound(open_store(uri))
    assert image_files(open_store(uri)) == undisturbed


@pytest.mark.parametrize("skews_s", [(0, 0), (3600, -3600), (-3600, 3600)])
def test_a_stopped_driver_is_superseded_and_its_late_commits_change_nothing(
    environment: dict[str, str], undisturbed: dict[str, str], tmp_path: Path, skews_s: tuple[int, int]
) -> None:
    """Also when the clocks of the drivers, and those of their workers, are wrong by an hour."""
    uri = str(tmp_path / "run")
    environment, second = (with_clock(environment, tmp_path, skew_s) for skew_s in skews_s)
    with driver(uri, environment, delay_s=2.0, ttl_s=3.0) as late:
        deadline = time.monotonic() + TIMEOUT_S
        while not open_store(uri).list("artefacts") or not entries(open_store(uri)):
            assert time.monotonic() < deadline
            assert late.poll() is None
            time.sleep(0.2)
        late.send_signal(signal.SIGSTOP)
        code, output = submit(uri, second)
        assert code == 0, output
        store = open_store(uri)
        assert image_files(store) == undisturbed
        before = kept(store)
        late.send_signal(signal.SIGCONT)
        said = late.communicate(timeout=TIMEOUT_S)[0]
        assert "another driver has taken over" in said
        assert kept(store) == before
    assert_sound(store)


def kept(store: Store) -> dict[str, bytes]:
    """Files of the artefacts without the notes of actors, which come and go."""
    keys = [key for key in store.list("artefacts") if not re.search("/(attempts|health)/", key)]
    return {key: store.read_bytes(key) for key in keys}


def with_clock(environment: dict[str, str], folder: Path, skew_s: int) -> dict[str, str]:
    """A driver and workers with a clock that is ahead or behind."""
    if not skew_s:
        return environment
    wrong = skewed_clock(folder, skew_s)
    return environment | wrong | {"WORKER_ENV": json.dumps(wrong)}


@pytest.mark.parametrize("actors", [1, 2, 4])
@pytest.mark.parametrize("order", [None, 5])
def test_bytes_do_not_depend_on_the_number_of_actors_nor_on_the_blocks(
    environment: dict[str, str], undisturbed: dict[str, str], tmp_path: Path, actors: int, order: int | None
) -> None:
    uri, journal = str(tmp_path / "run"), tmp_path / "journal"
    code, output = submit(uri, environment, actors=actors, order=order, journal=str(journal))
    assert code == 0, output
    assert_sound(open_store(uri))
    assert image_files(open_store(uri)) == undisturbed
    begun = begun_shards(journal)
    assert len(begun) == SHARDS
    if order is not None:
        planned = read_shards(made(open_store(uri)), "plan/", columns=["image_id"])["image_id"].to_pylist()
        firsts = planned[:: IMAGES // SHARDS]
        in_place = sum(one == other for one, other in zip(begun, firsts, strict=True))
        assert in_place <= SHARDS // 2, "the shards were not shuffled"


def test_a_run_that_grows_keeps_its_shards_and_cannot_shrink(
    environment: dict[str, str], tmp_path: Path
) -> None:
    uri = str(tmp_path / "run")
    store = open_store(uri)
    code, output = submit(uri, environment, rows=5)
    assert code == 0, output
    small, times = entries(store), file_times(tmp_path)
    assert len(small) == 10  # the last one is not full
    code, output = submit(uri, environment, rows=5, n=10)
    assert code == 0, output
    assert "skipped: False" in output
    large = entries(store)
    assert len(large) == 10 + 7
    assert {name: large[name] for name in small} == small
    assert {key: time for key, time in file_times(tmp_path).items() if key in times} == times
    assert_sound(store, images=80)
    code, output = submit(uri, environment, rows=5)
    assert code == 1
    assert "a run can grow, not shrink" in output


def file_times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("images/*.parquet")}


def test_damaged_shards_are_made_again(
    environment: dict[str, str], undisturbed: dict[str, str], uri: str
) -> None:
    assert submit(uri, environment)[0] == 0
    store = open_store(uri)
    folder, keys = made(store), sorted(image_files(store))
    data = folder.read_bytes(keys[0])
    folder.write_bytes(keys[0], data[:-7])
    folder.write_bytes(keys[1], data[:100] + bytes([data[100] ^ 1]) + data[101:])
    folder.delete(keys[2])
    found = {(finding.kind, f"{finding.name}.parquet") for finding in verify_run(store).findings}
    assert found == {("torn", keys[0]), ("torn", keys[1]), ("missing", keys[2])}
    repair_run(RunFolder.open(uri, {}))
    assert len(entries(store)) == SHARDS - 3
    code, output = submit(uri, environment)
    assert code == 0, output
    assert_sound(store)
    assert image_files(store) == undisturbed


def test_a_full_disk_is_one_clear_line_and_no_harm(
    environment: dict[str, str], undisturbed: dict[str, str], tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a tiny file system needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)], check=True)
    try:
        code, output = submit(str(disk / "run"), environment, retries=0)
        assert code == 1
        assert "disk full while writing" in output
        assert "Traceback" not in output.splitlines()[-1]
        store = open_store(str(disk / "run"))
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        code, output = submit(str(disk / "run"), environment)
        assert code == 0, output
        assert_sound(store)
        assert image_files(store) == undisturbed
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_live_view(environment: dict[str, str], tmp_path: Path) -> None:
    code, output = submit(str(tmp_path / "run"), environment, delay_s=1.0)
    assert code == 0, output
    last = [line for line in output.splitlines() if "images: " in line][-1]
    assert f"images: {IMAGES}/{IMAGES}," in last
    assert f"{SHARDS}/{SHARDS} shards, 1 node, cost 0.0" in last
    assert "; amusement 6, anger 6, awe 6" in last
