"""Pools: what their settings leave open, what contradicts, and what Ray is asked for."""

from typing import Any

import pytest

from uniemo_ray.config import Config
from uniemo_ray.pools import POOLS, Pool, Prices, find_painters, find_pool, matches, prices_of
from uniemo_ray.settings_file import load_config

SPOT = {"uniemo/pool": "generate", "ray.io/market-type": "spot"}
ON_DEMAND = SPOT | {"ray.io/market-type": "on-demand"}
AVOIDED = {"ray.io/node-id": "!in(a,b)"}


def config(**resources: Any) -> Config:
    return Config(resources=resources)


def test_without_pools_all_follow_the_other_settings() -> None:
    own = Config(
        resources={
            "use_gpu": True,
            "gpus_per_actor": 0.25,
            "cpus_per_worker": 3,
            "memory_gb_per_actor": 4.0,
            "actors": 5,
            "min_actors": 2,
            "workers": {"min": 1, "max": 4},
            "price_per_node_hour": 1.5,
        },
        generation={"actors": 7, "threads": 4},
    )
    pools = {name: find_pool(own, name) for name in POOLS}
    assert {
        (pool.cpus, pool.labels, pool.fallback, pool.prices.of({})) for pool in map(_hashable, pools.values())
    } == {(3, (), (), 1.5)}
    assert {name: pool.gpus for name, pool in pools.items()} == {
        "data": 0.0,
        "features": 0.25,
        "generate": 0.25,
        "train": 1.0,
    }
    assert {name: pool.memory_gb for name, pool in pools.items()} == {
        "data": 4.0,
        "features": 4.0,
        "generate": 4.0,
        "train": 0.0,
    }
    assert (pools["features"].actors, pools["features"].min_actors) == (5, 2)
    assert (pools["train"].actors, pools["train"].min_actors) == (4, 1)
    painters = find_painters(own)
    assert (painters.actors, painters.min_actors, painters.gpus, painters.cpus) == (7, 2, 1.0, 4)
    assert find_painters(config()).gpus == 0


def _hashable(pool: Pool) -> Any:
    class Flat:
        cpus, labels, fallback, prices = pool.cpus, tuple(pool.labels or ()), pool.fallback, pool.prices

    return Flat


def test_a_pool_says_what_its_settings_say() -> None:
    own = config(
        pools={
            "generate": {
                "gpus": 0.5,
                "cpus": 6,
                "memory_gb": 16,
                "actors": 32,
                "min_actors": 4,
                "labels": SPOT,
                "fallback": [ON_DEMAND],
            },
            "train": {"gpus": 1, "cpus": 10, "memory_gb": 32, "labels": {"uniemo/pool": "train"}},
        }
    )
    painters, train, features = find_painters(own), find_pool(own, "train"), find_pool(own, "features")
    assert painters.needs == {"CPU": 6, "GPU": 0.5, "memory": 16 * 2**30}
    assert (painters.actors, painters.min_actors) == (32, 4)
    assert train.needs == {"CPU": 10, "GPU": 1, "memory": 32 * 2**30}
    assert (features.gpus, features.labels) == (0.0, {})


def test_ray_is_asked_for_labels_with_their_alternatives() -> None:
    assert Pool().selectors() == {}
    assert Pool().selectors(besides=AVOIDED) == {"label_selector": AVOIDED}
    assert Pool(labels=SPOT).selectors() == {"label_selector": SPOT}
    both = Pool(labels=SPOT, fallback=(ON_DEMAND,)).selectors(besides=AVOIDED)
    assert both == {
        "label_selector": SPOT | AVOIDED,
        "fallback_strategy": [{"label_selector": ON_DEMAND | AVOIDED}],
    }


@pytest.mark.parametrize(
    ("selector", "label", "is_met"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a", None, False),
        ("!a", "b", True),
        ("!a", "a", False),
        ("!a", None, True),
        ("in(a, b)", "b", True),
        ("in(a,b)", "c", False),
        ("!in(a, b)", "c", True),
        ("!in(a, b)", "a", False),
    ],
)
def test_selectors_are_those_of_ray(selector: str, label: str | None, is_met: bool) -> None:
    assert matches({"key": selector}, {} if label is None else {"key": label}) is is_met


@pytest.mark.parametrize(
    ("has", "room"),
    [
        ({"CPU": 8, "GPU": 2, "memory": 64 * 2**30}, 2),
        ({"CPU": 8, "GPU": 0, "memory": 64 * 2**30}, 0),
        ({"CPU": 8, "GPU": 2, "memory": 20 * 2**30}, 1),
        ({"CPU": 8, "GPU": 2}, 0),
    ],
)
def test_a_machine_takes_as_many_as_its_scarcest_resource(has: dict[str, float], room: int) -> None:
    assert Pool(cpus=3, gpus=1, memory_gb=16).room_on(has) == room


def test_each_machine_has_the_price_of_its_pool() -> None:
    pools = {
        "train": {"labels": {"uniemo/pool": "train"}, "memory_gb": 1, "price_per_node_hour": 30},
        "generate": {
            "labels": SPOT,
            "fallback": [ON_DEMAND],
            "memory_gb": 1,
            "price_per_node_hour": 0.5,
        },
    }
    prices = prices_of(config(price_per_node_hour=0.2, pools=pools).resources)
    assert [prices.of(labels) for labels in ({"uniemo/pool": "train"}, SPOT, ON_DEMAND, {})] == [
        30,
        0.5,
        0.5,
        0.2,
    ]
    assert prices
    assert not Prices()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("resources.pools.painters.gpus=1", "resources.pools.painters: unknown setting"),
        ("resources.pools.train.label={a: b}", "resources.pools.train.label: unknown setting"),
        ("resources.pools.train.labels={a: b}", "resources.pools.train has labels and no memory_gb"),
        ("resources.pools.generate.labels={a: b}", "resources.pools.generate has labels and no memory_gb"),
        ("resources.pools.generate.fallback=[{a: b}]", "but there are no labels"),
        ("resources.pools.train.actors=4", "the number of training workers is resources.workers"),
        ("resources.pools.train.gpus=0.5", "train.gpus is 0.5, but a training worker takes 0 or 1"),
        ("resources.pools.data.gpus=1", "the work of this pool uses no GPU"),
        (
            "resources.pools.features.gpus=2",
            "resources.pools.features.gpus: Input should be less than or equal",
        ),
        ("resources.pools.features.price_per_node_hour=2", "without labels nothing tells its machines"),
        (
            "resources={use_gpu: true, pools: {train: {gpus: 1}}}",
            "resources.use_gpu and resources.pools.train.gpus both say what has a GPU",
        ),
        (
            "resources={pools: {train: {memory_gb: 1, labels: {a: b}, fallback: [{a: c}]}}}",
            "Ray Train places all workers by one set of labels",
        ),
    ],
)
def test_what_contradicts_is_one_line(setting: str, words: str) -> None:
    with pytest.raises(ValueError, match="resources") as error:
        load_config(None, [setting])
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_labels_with_the_memory_of_every_actor_are_enough() -> None:
    own = config(memory_gb_per_actor=4.0, pools={"generate": {"labels": SPOT}})
    assert find_pool(own, "generate").memory_gb == 4
