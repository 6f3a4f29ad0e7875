"""On real machines with labels, each kind of work runs on those of its pool and nowhere else."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray
from ray.cluster_utils import Cluster

from tests.distributed.pool_case import WhereActor, here, tell_into, told, where
from tests.distributed.training.train_case import shards
from uniemo_ray.config import Config
from uniemo_ray.distributed.datasets import selectors_of
from uniemo_ray.distributed.pool_check import check_pool_machines
from uniemo_ray.distributed.scorers import on_a_worker
from uniemo_ray.distributed.shards.map_shards import map_shards
from uniemo_ray.distributed.tasks import in_order, total
from uniemo_ray.distributed.training.train_stage import train_stage
from uniemo_ray.pools import Pool
from uniemo_ray.store.base import Store
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import commit_shard, read_shards
from uniemo_ray.training.stage_settings import StageSettings

pytestmark = [pytest.mark.ray, pytest.mark.slow]
NODE = {"num_cpus": 2, "object_store_memory": 100_000_000, "include_dashboard": False}
OWN, OTHER = {"uniemo/pool": "own"}, {"uniemo/pool": "other"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A head and two machines with labels, of two CPUs each; the driver is on the head."""
    if ray.is_initialized():
        ray.shutdown()
    made = Cluster(initialize_head=True, head_node_args=NODE)
    try:
        made.add_node(**NODE, labels=OTHER)
        made.add_node(**NODE, labels=OWN)
        ray.init(made.address, log_to_driver=False)
        yield
    finally:
        ray.shutdown()
        made.shutdown()


@pytest.fixture
def source(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "source"))
    for number in range(6):
        commit_shard(store, f"in/part-{number:05d}", pa.table({"x": [number]}), plan_hash="")
    return store


@pytest.mark.parametrize("as_tasks", [False, True])
@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        (Pool(labels=OWN, memory_gb=0.1, actors=2, min_actors=2), "own"),
        (Pool(labels={"uniemo/pool": "sold-out"}, fallback=(OTHER,), memory_gb=0.1, actors=2), "other"),
    ],
)
def test_actors_and_tasks_of_shards(
    cluster: None, source: Store, tmp_path: Path, pool: Pool, expected: str, as_tasks: bool
) -> None:
    target = open_store(str(tmp_path / "target"))
    map_shards(
        source, {"out": "in"}, target=target, actor=WhereActor, plan_hash="p", pool=pool, as_tasks=as_tasks
    )
    assert read_shards(target, "out/")["pool"].to_pylist() == [expected] * 6


def test_single_tasks(cluster: None) -> None:
    pool = Pool(labels=OWN, memory_gb=0.1, actors=4)
    assert set(in_order(where, range(6), pool=pool, what="test")) == {"own"}
    added = total(_as_set, range(6), add=_union, pool=pool, what="test", at_once=3)
    assert added == {"own"}
    assert on_a_worker(here, pool=pool) == "own"


def _as_set(item: int) -> set[str]:
    return {where(item)}


def _union(first: set[str], second: set[str]) -> set[str]:
    return first | second | {here()}


def test_batches_of_a_data_set(cluster: None) -> None:
    pool = Pool(labels=OTHER, fallback=(OWN,))
    rows = ray.data.range(8, override_num_blocks=4).map_batches(
        lambda batch: {"pool": np.array([here()] * len(batch["id"]))}, **selectors_of(pool)
    )
    assert {row["pool"] for row in rows.take_all()} == {"other"}


@pytest.mark.parametrize("decode", ["worker", "cluster"])
def test_ranks_of_a_stage(cluster: None, tmp_path: Path, decode: str) -> None:
    log = tmp_path / "log"
    log.mkdir()
    settings = {
        "data": {"sketch_train": 24},
        "stage1": {"epochs": 1, "batch_size": 8, "warmup_steps": 1, "decode": decode},
        "resources": {"pools": {"train": {"labels": OWN, "memory_gb": 0.1}}},
    }
    result = train_stage(
        settings=StageSettings(stage="understanding", config=Config.model_validate(settings)),
        data=shards(str(tmp_path / "shards"), 24),
        storage=str(tmp_path / "storage"),
        name="tiny",
        build=tell_into(log),
    )
    assert result.images == 24
    assert told(log) == ["own", "own"]


def test_a_typo_is_said_before_anything_starts(cluster: None) -> None:
    config = Config(resources={"pools": {"generate": {"memory_gb": 1, "labels": {"uniemo/pool": "onw"}}}})
    with pytest.raises(
        ValueError, match=r"^resources\.pools\.generate\.labels: no machine has uniemo/pool=onw; "
    ):
        check_pool_machines(config, ["generate"])
    check_pool_machines(config, ["train", "data"])
