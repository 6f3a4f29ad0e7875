"""Shards in, shards out, with real Ray actors."""

import pyarrow as pa
import pytest

from uniemo_ray.config import ResourceConfig
from uniemo_ray.distributed.map_shards import map_shards
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import commit_shard, committed, read_shards

RESOURCES = ResourceConfig(actors=1, memory_gb_per_actor=0.1)


class Doubler:
    """Doubles column x; refuses one value."""

    def __init__(self, poison: int, device: str) -> None:
        assert device == "cpu"
        self.poison = poison

    def __call__(self, table: pa.Table) -> pa.Table:
        values = table["x"].to_pylist()
        if self.poison in values:
            raise RuntimeError(f"poisoned by {self.poison}")
        return pa.table({"x": [2 * x for x in values]})


def run(source, target, *, poison=-1, plan="p"):
    return map_shards(
        source,
        {"low": "in/low", "high": "in/high"},
        target=target,
        actor=Doubler,
        settings={"poison": poison},
        plan_hash=plan,
        resources=RESOURCES,
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
    with pytest.raises(Exception, match="poisoned by 101"):
        run(source, target, poison=101)
    before = committed(target)
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


def test_a_folder_without_shards_is_named(tmp_path):
    store = open_store(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="in/low"):
        run(store, store)
