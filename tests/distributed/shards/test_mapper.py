"""One actor's work, without Ray: what cannot be made is told, alone, and does not end the rest."""

import json
import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray
import torch

from uniemo_ray.distributed.shards import loading
from uniemo_ray.distributed.shards.health import Health
from uniemo_ray.distributed.shards.loading import LOADS
from uniemo_ray.distributed.shards.mapper import MapWork, ShardMapper, map_in_task
from uniemo_ray.distributed.shards.report import ShardReport, ShardTask
from uniemo_ray.store.attempts import begin
from uniemo_ray.store.base import Store
from uniemo_ray.store.errors import StoreError
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import commit_shard, committed, read_shards

ROOT = Path(__file__).parents[2]
CHILD = """
import sys
from tests.distributed.shards.test_mapper import mapper, task
print(mapper(sys.argv[1], deadly="c").map(task(sys.argv[1])).rows)
"""


class Upper:
    """Upper case, but one text kills the process and one raises."""

    def __init__(self, deadly: str = "", raising: str = "", error: str = "", *, device: str = "cpu") -> None:
        self.deadly, self.raising, self.error = deadly, raising, error

    def __call__(self, table: pa.Table) -> pa.Table:
        texts = table["x"].to_pylist()
        if self.deadly in texts:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.raising in texts:
            raise {
                "": RuntimeError,
                "damaged": pa.ArrowInvalid,  # a ValueError too, but of its row
                "value": ValueError,
                "store": StoreError,
                "memory": torch.OutOfMemoryError,
                "lost": torch.AcceleratorError,
            }[self.error]("bad\nmore")
        return pa.table(
            {"emotion": [t.upper() for t in texts], "reason": pa.array([None] * len(texts), pa.string())}
        )

    def reject(self, table: pa.Table, reason: str) -> pa.Table:
        return pa.table({"emotion": table["x"], "reason": [reason] * table.num_rows})


class Strict(Upper):
    """Knows no rows without a result."""

    reject = None  # type: ignore[assignment]


def mapper(folder: str, make: type = Upper, **settings: str) -> ShardMapper:
    source, target = open_store(f"{folder}/in"), open_store(f"{folder}/out")
    return ShardMapper(MapWork(partial(make, **settings), "cpu", source, target, retries=1, label="test"))


def task(folder: str, name: str = "a/0", *, is_last: bool = False) -> ShardTask:
    made, to = committed(open_store(f"{folder}/in"))[name], name.replace("a", "b")
    return ShardTask(made.key, made.bytes, made.sha256, to, "p", attempt=1 + is_last, is_last=is_last)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    rows = pa.table({"x": ["a", "b", "c", "d"]})
    commit_shard(open_store(f"{tmp_path}/in"), "a/0", rows, plan_hash="q")
    return str(tmp_path)


def result(folder: str) -> list[tuple[str, str | None]]:
    rows = read_shards(open_store(f"{folder}/out")).to_pylist()
    return [(row["emotion"], row["reason"]) for row in rows]


def attempts(folder: str) -> list[str]:
    store: Store = open_store(f"{folder}/out")
    return store.list("attempts")


def test_a_shard_is_made_once(folder: str) -> None:
    report = mapper(folder).map(task(folder))
    assert report == ShardReport("b/0", rows=4, groups=json.dumps({"A": 1, "B": 1, "C": 1, "D": 1}))
    assert mapper(folder, deadly="a").map(task(folder)).rows == 4  # it is there: nobody tries again
    assert attempts(folder) == []
    assert committed(open_store(f"{folder}/out"))["b/0"].plan_hash == "p"


def test_damaged_input_is_not_worked_on(folder: str) -> None:
    listed = task(folder)._replace(bytes=1, sha256="s")
    report = mapper(folder).map(listed)
    assert report.kind == "DamagedError"
    assert "bytes instead of 1: uniemo store repair removes it" in report.reason


def test_rows_that_raise_are_left_out_at_last(folder: str) -> None:
    first = mapper(folder, raising="b").map(task(folder))
    assert first == ShardReport("b/0", kind="RuntimeError", reason="bad")
    report = mapper(folder, raising="b").map(task(folder, is_last=True))
    assert (report.rows, report.failed, report.kind) == (4, 1, "")
    assert result(folder) == [("A", None), ("b", "RuntimeError: bad"), ("C", None), ("D", None)]
    assert committed(open_store(f"{folder}/out"))["b/0"].failed == {"RuntimeError: bad": 1}
    assert attempts(folder) == []


def test_a_row_that_cannot_be_decoded_is_left_out_alone(folder: str) -> None:
    assert mapper(folder, raising="b", error="damaged").map(task(folder)).kind == "ArrowInvalid"
    report = mapper(folder, raising="b", error="damaged").map(task(folder, is_last=True))
    assert (report.rows, report.failed, report.kind) == (4, 1, "")
    assert result(folder)[1] == ("b", "ArrowInvalid: bad")


@pytest.mark.parametrize(("error", "kind"), [("value", "ValueError"), ("store", "StoreError")])
def test_a_wrong_model_or_lost_storage_is_no_rows_fault(folder: str, error: str, kind: str) -> None:
    assert mapper(folder, raising="b", error=error).map(task(folder, is_last=True)).kind == kind
    assert committed(open_store(f"{folder}/out")) == {}
    assert attempts(folder) == []


def test_an_actor_without_such_rows_fails_as_a_whole(folder: str) -> None:
    assert mapper(folder, Strict, raising="b").map(task(folder, is_last=True)).kind == "RuntimeError"


def test_a_row_that_kills_is_found_and_left_out(folder: str) -> None:
    codes = []
    for _ in range(8):
        command = [sys.executable, "-c", CHILD, folder]
        codes.append(subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": "."}).returncode)
        if codes[-1] == 0:
            break
    # twice as a whole (one retry), then twice alone
    assert codes == [-signal.SIGKILL] * 4 + [0]
    assert result(folder) == [("A", None), ("B", None), ("c", "killed 2 processes"), ("D", None)]
    assert committed(open_store(f"{folder}/out"))["b/0"].attempt == 5
    assert attempts(folder) == []


class Hungry(Upper):
    """Knows which setting makes it need less memory."""

    memory_advice = "set x to 4 (it is 8)"


@pytest.mark.parametrize(
    ("make", "advice"), [(Hungry, r"set x to 4 \(it is 8\)"), (Strict, "use accelerators with more memory")]
)
def test_too_little_memory_ends_the_run_with_advice(folder: str, make: type, advice: str) -> None:
    """Rows are not tried one by one: their bytes would be those of another micro-batch."""
    report = mapper(folder, make, raising="b", error="memory").map(task(folder, is_last=True))
    assert report.kind == "ValueError"
    assert re.fullmatch(rf"the accelerator ran out of memory \(bad.*\): {advice}", report.reason)
    assert committed(open_store(f"{folder}/out")) == {}


@pytest.mark.parametrize(("is_last", "deaths"), [(False, 0), (True, 0), (False, 2)])
def test_a_lost_accelerator_ends_the_process_and_blames_no_row(
    folder: str, deaths: int, *, is_last: bool
) -> None:
    """After two deaths the rows are tried one by one; retries are 1."""
    for _ in range(deaths):
        begin(open_store(f"{folder}/out"), "b/0")
    pid = os.fork()
    if pid == 0:
        ray.is_initialized = lambda: False  # a fork cannot talk to a cluster that another test has started
        mapper(folder, raising="b", error="lost").map(task(folder, is_last=is_last))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert attempts(folder) == []
    assert committed(open_store(f"{folder}/out")) == {}
    notes = Health(open_store(f"{folder}/out"), "").notes()
    assert sorted(note.kind for note in notes) == ["begun", "failed"]


def test_a_lost_accelerator_of_a_process_that_has_made_something_is_no_failure(folder: str) -> None:
    rows = pa.table({"x": ["z"]})
    commit_shard(open_store(f"{folder}/in"), "a/1", rows, plan_hash="q")
    pid = os.fork()
    if pid == 0:
        ray.is_initialized = lambda: False  # a fork cannot talk to a cluster that another test has started
        actor = mapper(folder, raising="b", error="lost")
        actor.map(task(folder, "a/1"))
        actor.map(task(folder))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert list(committed(open_store(f"{folder}/out"))) == ["b/1"]
    assert [note.kind for note in Health(open_store(f"{folder}/out"), "").notes()] == ["begun"]


class Unready(Upper):
    """Loads at the n-th try, counted in a file."""

    def __init__(self, counter: str, loads_at: str, error: str = "", device: str = "cpu") -> None:
        super().__init__()
        with Path(counter).open("a") as file:
            file.write(".")
        if Path(counter).stat().st_size < int(loads_at):
            raise {"": OSError, "value": ValueError}[error]("not yet")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(loading.time, "sleep", found.append)
    return found


def test_a_load_that_fails_once_costs_no_shard(folder: str, pauses: list[float]) -> None:
    assert mapper(folder, Unready, counter=f"{folder}/loads", loads_at="2").map(task(folder)).rows == 4
    assert len(pauses) == 1


def test_a_process_that_cannot_load_takes_no_shard(folder: str, pauses: list[float]) -> None:
    with pytest.raises(OSError, match="not yet"):
        mapper(folder, Unready, counter=f"{folder}/loads", loads_at="99")
    assert Path(f"{folder}/loads").stat().st_size == LOADS


def test_a_wrong_model_is_told_with_every_shard(folder: str, pauses: list[float]) -> None:
    found = mapper(folder, Unready, counter=f"{folder}/loads", loads_at="99", error="value")
    for _ in range(2):
        report = found.map(task(folder))
        assert (report.kind, report.reason) == ("ValueError", "not yet")
    assert Path(f"{folder}/loads").stat().st_size == 1


def test_the_last_actor_of_a_pool_tells_why_none_can_start(folder: str, pauses: list[float]) -> None:
    Health(open_store(f"{folder}/out"), "").note("gone", began_ms=0, error=OSError("No space left"))
    report = mapper(folder).map(task(folder))
    assert report.kind == "NoActorError"
    assert report.reason.endswith("node local): No space left")


def test_a_task_tells_its_errors_and_goes_on(folder: str, pauses: list[float]) -> None:
    """It loads nothing that could be lost."""
    source, target = open_store(f"{folder}/in"), open_store(f"{folder}/out")
    make = partial(Upper, raising="b", error="lost")
    work = MapWork(make, "cpu", source, target, retries=1, label="test")
    columns = {name: np.array([value]) for name, value in task(folder)._asdict().items()}
    assert map_in_task(columns, work)["kind"].tolist() == ["AcceleratorError"]
    assert target.is_empty("health")
