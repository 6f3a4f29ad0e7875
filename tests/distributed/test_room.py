"""Which steps run side by side."""

from typing import Any

import pytest
import ray

from uniemo_ray.config import Config
from uniemo_ray.distributed.room import ClusterRoom
from uniemo_ray.store.steps import Place, Step, StepOutput


def step(place: Place, pool: str = "") -> Step:
    return Step(place, {}, (), lambda _: StepOutput(), 1, "", "", place, pool)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Resources of a cluster, and its number of nodes; change it to change the cluster."""
    has: dict[str, Any] = {"CPU": 16.0, "GPU": 8.0, "memory": 64.0 * 2**30, "nodes": 2}

    def nodes() -> list[dict[str, Any]]:
        share = {key: value / has["nodes"] for key, value in has.items() if key not in ("nodes", "labels")}
        names = [f"node-{number}" for number in range(has["nodes"])]
        labels = has.get("labels", [{}] * len(names))
        return [
            {"Alive": True, "NodeID": name, "Resources": share, "Labels": own}
            for name, own in zip(names, labels, strict=True)
        ]

    monkeypatch.setattr(ray, "nodes", nodes)
    return has


def room(**resources: Any) -> ClusterRoom:
    config = {"workers": 4, "actors": 4, "min_actors": 1, "use_gpu": True, "memory_gb_per_actor": 2.0}
    return ClusterRoom(Config(resources=config | resources, generation={"actors": 4}))


def test_a_pool_that_runs_counts_with_its_largest_size(cluster):
    assert room()(step("actors"), [step("workers")])
    assert room()(step("workers"), [step("actors")])
    assert not room()(step("actors"), [step("workers"), step("actors")])
    assert not room(workers=8)(step("workers"), [step("actors")])


def test_each_kind_of_resource_counts(cluster):
    cluster["GPU"] = 4.0
    assert not room()(step("actors"), [step("workers")])
    assert room(use_gpu=False)(step("actors"), [step("workers")])
    cluster["memory"] = 9.0 * 2**30
    assert not room(use_gpu=False)(step("actors"), [step("actors")])
    cluster["memory"] = 10.0 * 2**30
    assert room(use_gpu=False)(step("actors"), [step("actors")])


def test_the_driver_does_one_thing_at_a_time(cluster):
    assert room()(step("driver"), [step("workers"), step("actors")])
    assert not room()(step("driver"), [step("driver")])


def test_on_one_machine_the_driver_takes_a_cpu(cluster):
    cluster.update(nodes=1, CPU=4.0)
    assert not room(use_gpu=False)(step("driver"), [step("workers")])
    cluster["CPU"] = 5.0
    assert room(use_gpu=False)(step("driver"), [step("workers")])


def test_no_more_than_the_setting_allows(cluster):
    assert room(parallel_steps=2)(step("driver"), [step("actors")])
    assert not room(parallel_steps=1)(step("driver"), [step("actors")])


POOLS = {
    name: {"labels": {"uniemo/pool": name}, "memory_gb": 1}
    for name in ("data", "features", "generate", "train")
}


def test_pools_with_machines_of_their_own_do_not_wait_for_each_other(cluster):
    """Also where neither has a machine yet."""
    own = room(workers=8, use_gpu=False, pools=POOLS)
    assert own(step("workers", "train"), [step("actors", "generate"), step("actors", "features")])
    assert own(step("actors", "features"), [step("workers", "train")])
    assert not room(workers=20, use_gpu=False)(step("workers", "train"), [step("actors", "features")])


def test_steps_of_one_pool_share_its_machines(cluster):
    cluster["labels"] = [{"uniemo/pool": "features"}, {"uniemo/pool": "train"}]  # of 8 CPUs each
    own = room(actors=7, use_gpu=False, pools=POOLS)
    assert own(step("actors", "features"), [step("actors", "features")])
    assert not room(actors=8, use_gpu=False, pools=POOLS)(
        step("actors", "features"), [step("actors", "features")]
    )


def test_a_fallback_into_another_pool_shares_its_machines(cluster):
    cluster["labels"] = [{"uniemo/pool": "features"}, {"uniemo/pool": "train"}]
    features = POOLS["features"] | {"fallback": [{"uniemo/pool": "train"}]}
    own = room(workers=8, actors=12, use_gpu=False, pools=POOLS | {"features": features})
    assert not own(step("workers", "train"), [step("actors", "features")])
    assert own(step("actors", "generate"), [step("actors", "features")])
