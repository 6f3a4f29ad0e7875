"""Pools of actors: each on a GPU of its own; a process with a useless GPU ends, and its step ends well."""

from functools import partial
from importlib.util import find_spec
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from tests.gpu.device import DEVICE, cards
from tests.gpu.pool_case import POISONED, Poisoned, Where
from uniemo_ray.distributed.shards.map_shards import map_shards
from uniemo_ray.distributed.shards.table_actor import ActorFactory
from uniemo_ray.pools import Pool
from uniemo_ray.store.base import Store
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import commit_shard, read_shards

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600), pytest.mark.usefixtures("ray_session")]
SHARDS = 8


@pytest.fixture
def source(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "source"))
    for number in range(SHARDS):
        commit_shard(store, f"in/part-{number:05d}", pa.table({"x": [number]}), plan_hash="")
    return store


def run(source: Store, target: Store, actor: ActorFactory) -> pa.Table:
    pool = Pool(actors=cards(), min_actors=cards(), gpus=float(DEVICE == "cuda"), memory_gb=0.1)
    map_shards(source, {"out": "in"}, target=target, actor=actor, plan_hash="p", pool=pool)
    return read_shards(target, "out/")


def test_each_actor_has_its_own_device(source: Store, tmp_path: Path) -> None:
    rows = run(source, open_store(str(tmp_path / "target")), Where).to_pylist()
    assert {row["device"] for row in rows} == {DEVICE}
    places = {(row["process"], row["gpu"]) for row in rows}
    assert (
        len(places) == len({process for process, _ in places}) == len({gpu for _, gpu in places}) == cards()
    )


@pytest.mark.skipif(
    find_spec("uniemo_ray.accelerator") is None,
    reason="a process that has lost its accelerator does not end yet",
)
def test_a_poisoned_process_ends_and_the_step_ends_well(source: Store, tmp_path: Path) -> None:
    target = open_store(str(tmp_path / "target"))
    table = run(source, target, partial(Poisoned, folder=str(tmp_path)))
    assert table["x"].to_pylist() == [2 * number for number in range(SHARDS)]
    poisoned = int((tmp_path / POISONED).read_text())
    assert poisoned not in table["process"].to_pylist()
    assert not psutil.pid_exists(poisoned)
