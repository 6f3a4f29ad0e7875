"""Shards in, shards out, with real Ray actors."""

from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
import ray.data

from uniemo_ray.config import Config
from uniemo_ray.distributed.shards import map_shards as module
from uniemo_ray.distributed.shards.map_shards import map_shards
from uniemo_ray.pools import Pool, find_pool
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import commit_shard, committed, read_shards

POOL = Pool(actors=2, memory_gb=0.1)
ANY = -2


class Doubler:
    """Doubles column x; refuses one value, for ever or until `mended` exists."""

    def __init__(self, poison: int, kind: str, mended: str, device: str) -> None:
        assert device == "cpu"
        if poison == ANY:
            raise ValueError("no such model")
        self.poison, self.kind, self.mended = poison, kind, Path(mended)

    def __call__(self, table: pa.Table) -> pa.Table:
        values = table["x"].to_pylist()
        if self.poison in values and not self.mended.exists():
            if self.kind == "once":
                self.mended.touch()
            raise ValueError("wrong") if self.kind == "wrong" else OSError(f"poisoned by {self.poison}\nmore")
        return pa.table({"x": [2 * x for x in values]})


def run(source, target, *, poison=-1, kind="", mended="/nowhere/mended", plan="p", retries=0):
    return map_shards(
        source,
        {"low": "in/low", "high": "in/high"},
        target=target,
        actor=partial(Doubler, poison=poison, kind=kind, mended=str(mended)),
        plan_hash=plan,
        pool=POOL,
        retries=retries,
    )


@pytest.fixture
def source(tmp_path):
    store = open_store(str(tmp_path / "source"))
    for number in range(3):
        commit_shard(store, f"in/low/part-{number:05d}", pa.table({"x": [number]}), plan_hash="")
    commit_shard(store, "in/high/part-00000", pa.table({"x": [100, 101]}), plan_hash="")
    return store


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_failed_run_goes_on_where_it_stopped(source, tmp_path):
    target = open_store(str(tmp_path / "target"))
    text = r"1 shards failed, among them high/part-00000 by OSError: poisoned by 101 \(after 2 attempts\)"
    with pytest.raises(RuntimeError, match=text):
        run(source, target, poison=101, retries=1)
    before = committed(target)
    assert len(before) == 3  # all others are done
    assert run(source, target) == {"low": 3, "high": 2}
    assert read_shards(target, "low/")["x"].to_pylist() == [0, 2, 4]
    assert read_shards(target, "high/")["x"].to_pylist() == [200, 202]
    after = committed(target)
    assert {name: after[name] for name in before} == before  # what was committed was not made again


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_nothing_to_do_starts_no_actor(source, tmp_path):
    target = open_store(str(tmp_path / "target"))
    run(source, target)
    assert run(source, target, poison=0) == {"low": 3, "high": 2}  # the poison would have raised


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_what_fails_is_tried_again(source, tmp_path, caplog):
    target = open_store(str(tmp_path / "target"))
    rows = run(source, target, poison=1, kind="once", mended=tmp_path / "mended", retries=1)
    assert rows == {"low": 3, "high": 2}
    assert "OSError: poisoned by 1; they are tried again" in caplog.text


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(("poison", "reason"), [(2, "wrong"), (ANY, "no such model")])
def test_a_wrong_value_is_not_tried_again(source, tmp_path, caplog, poison, reason):
    with pytest.raises(ValueError, match=f"^{reason}$"):
        run(source, open_store(str(tmp_path / "target")), poison=poison, kind="wrong", retries=2)
    assert "tried again" not in caplog.text


def placed(source, tmp_path, monkeypatch, **resources):
    """What Ray is asked for each actor."""
    asked = {}

    class AskedError(Exception):
        pass

    class Plan:
        context = ray.data.DataContext.get_current().copy()

        def map_batches(self, _function, **options):
            asked.update(options)
            raise AskedError

    monkeypatch.setattr("ray.data.from_items", lambda *_, **__: Plan())
    with pytest.raises(AskedError):
        map_shards(
            source,
            {"low": "in/low"},
            target=open_store(str(tmp_path / "target")),
            actor=Doubler,
            plan_hash="p",
            pool=find_pool(Config(resources=resources), "features"),
        )
    return asked


def test_actors_may_share_a_gpu(source, tmp_path, monkeypatch):
    assert placed(source, tmp_path, monkeypatch, use_gpu=True, gpus_per_actor=0.25)["num_gpus"] == 0.25
    assert placed(source, tmp_path, monkeypatch, use_gpu=True)["num_gpus"] == 1
    assert placed(source, tmp_path, monkeypatch, gpus_per_actor=0.25)["num_gpus"] == 0


def test_a_folder_without_shards_is_named(tmp_path):
    store = open_store(str(tmp_path))
    store.write_bytes("in/low/part-00000.parquet", b"not listed, so nobody reads it")
    with pytest.raises(FileNotFoundError, match=r"no committed shards below .*in/low"):
        run(store, store)


def test_what_is_lost_with_its_process_is_no_attempt(source, tmp_path, monkeypatch):
    """Each pass but the first makes one shard and loses the others; then nothing is made any more."""
    target, seen = open_store(str(tmp_path / "target")), []

    def make_one(tasks, work, progress, **_):
        seen.append((len(tasks), {(task.attempt, task.is_last) for task in tasks}))
        if 1 < len(seen) < 4:
            commit_shard(target, tasks[0].name, pa.table({"x": [1]}), plan_hash="p")
        return []

    monkeypatch.setattr(module, "_map", make_one)
    text = r"^2 shards were lost with the processes that made them, among them .*, and 3 passes in a row"
    with pytest.raises(RuntimeError, match=text):
        run(source, target, retries=1)
    assert [left for left, _ in seen] == [4, 4, 3, 2, 2, 2]
    assert all(tried == {(1, False)} for _, tried in seen)
