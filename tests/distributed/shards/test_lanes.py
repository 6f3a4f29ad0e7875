"""Two shards in one process: they overlap, and neither is blamed for the other."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from uniemo_ray.distributed.shards.lanes import AT_ONCE, Lanes
from uniemo_ray.distributed.shards.mapper import MapWork, ShardMapper
from uniemo_ray.distributed.shards.report import ShardReport, ShardTask
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import commit_shard, committed, read_shards

ROOT = Path(__file__).parents[3]
SHARDS = 6
PAINT_S, ENCODE_S = 0.3, 0.2
CHILD = """
import sys
from tests.distributed.shards.test_lanes import run_all
reports = run_all(sys.argv[1], deadly=sys.argv[2])
sys.exit(any(report.kind for report in reports))
"""


class Staged:
    """Paints on a device that serves one shard at a time, then encodes; one text may fail or kill."""

    def __init__(self, deadly: str = "", raising: str = "", *, device: str = "cpu") -> None:
        self.deadly, self.raising = deadly, raising
        self.device = threading.Lock()

    def begin(self, table: pa.Table):
        assert self.device.acquire(blocking=False), "two shards on the device"
        time.sleep(PAINT_S)
        texts = table["x"].to_pylist()
        if self.deadly in texts:
            os.kill(os.getpid(), signal.SIGKILL)
        self.device.release()
        return partial(self.encode, texts)

    def encode(self, texts: list[str]) -> pa.Table:
        time.sleep(ENCODE_S)
        if self.raising in texts:
            raise RuntimeError("cannot be encoded")
        return pa.table(
            {"emotion": [t.upper() for t in texts], "reason": pa.array([None] * len(texts), pa.string())}
        )

    def __call__(self, table: pa.Table) -> pa.Table:
        return self.begin(table)()

    def reject(self, table: pa.Table, reason: str) -> pa.Table:
        return pa.table({"emotion": table["x"], "reason": [reason] * table.num_rows})


def mapper(folder: str, **settings: str) -> ShardMapper:
    source, target = open_store(f"{folder}/in"), open_store(f"{folder}/out")
    return ShardMapper(MapWork(partial(Staged, **settings), "cpu", source, target, retries=1, label="test"))


def tasks(folder: str, *, is_last: bool = False) -> list[ShardTask]:
    entries = committed(open_store(f"{folder}/in")).values()
    return [
        ShardTask(e.key, e.bytes, e.sha256, e.name.replace("a/", "b/"), "p", attempt=1, is_last=is_last)
        for e in entries
    ]


def run_all(folder: str, *, is_last: bool = False, **settings: str) -> list[ShardReport]:
    """As Ray's two threads do."""
    made = mapper(folder, **settings)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(made.map, tasks(folder, is_last=is_last)))


@pytest.fixture
def folder(tmp_path: Path) -> str:
    for number in range(SHARDS):
        rows = pa.table({"x": [f"{number}a", f"{number}b"]})
        commit_shard(open_store(f"{tmp_path}/in"), f"a/{number}", rows, plan_hash="q")
    return str(tmp_path)


def test_a_shard_is_encoded_while_the_next_one_is_painted(folder: str) -> None:
    started = time.monotonic()
    reports = run_all(folder)
    seconds = time.monotonic() - started
    assert [report.kind for report in reports] == [""] * SHARDS
    assert seconds < 0.85 * SHARDS * (PAINT_S + ENCODE_S)
    entries = committed(open_store(f"{folder}/out"))
    assert len(entries) == SHARDS
    # the time of a pool's rate: no second counts for two shards
    assert sum(entry.seconds for entry in entries.values()) <= seconds


def test_an_error_behind_the_device_is_that_shards_own(folder: str) -> None:
    reports = run_all(folder, raising="2b")
    assert {r.shard: (r.kind, r.reason) for r in reports if r.kind} == {
        "b/2": ("RuntimeError", "cannot be encoded")
    }
    assert len(committed(open_store(f"{folder}/out"))) == SHARDS - 1
    run_all(folder, is_last=True, raising="2b")
    rows = read_shards(open_store(f"{folder}/out")).to_pylist()
    assert [row["emotion"] for row in rows if row["reason"]] == ["2b"]
    assert len(rows) == 2 * SHARDS
    assert open_store(f"{folder}/out").list("attempts") == []


def test_a_shard_that_kills_is_found_and_its_neighbours_keep_their_rows(folder: str) -> None:
    for _ in range(12):
        command = [sys.executable, "-c", CHILD, folder, "3b"]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": "."})
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    rows = read_shards(open_store(f"{folder}/out")).to_pylist()
    assert {row["emotion"]: row["reason"] for row in rows if row["reason"]} == {"3b": "killed 2 processes"}
    assert len(rows) == 2 * SHARDS
    assert open_store(f"{folder}/out").list("attempts") == []
    attempts = {name: entry.attempt for name, entry in committed(open_store(f"{folder}/out")).items()}
    assert all(attempt <= 2 for name, attempt in attempts.items() if name != "b/3")


def test_who_works_alone_waits_for_the_others_and_they_for_it() -> None:
    lanes, seen = Lanes(), []

    def work(name: str, alone: bool) -> None:
        with lanes.inside(alone=alone):
            seen.append(f"{name} in")
            time.sleep(0.05)
            seen.append(f"{name} out")

    with ThreadPoolExecutor(3) as pool:
        for name, alone in (("a", False), ("alone", True), ("b", False)):
            pool.submit(work, name, alone)
            time.sleep(0.02)
    assert seen == ["a in", "a out", "alone in", "alone out", "b in", "b out"]
