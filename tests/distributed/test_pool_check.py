"""Pools against clusters: a label that no machine will have is said before anything starts."""

import logging
from typing import Any

import pytest

from uniemo_ray.config import Config
from uniemo_ray.distributed.autoscaling import Growth, MachineType, growth, read_growth
from uniemo_ray.distributed.pool_check import check_labels, judge_pools
from uniemo_ray.pools import Pool

NEW = """2026-11-30 14:21:29,045	INFO autoscaler.py:73 -- Using Autoscaling Config:{space}
available_node_types:
  painters:
    max_workers: 4
    labels: {uniemo/pool: generate, ray.io/market-type: spot}
    resources: {CPU: 7, memory: 18000000000}
  none:
    max_workers: 0
    labels: {uniemo/pool: never}
    resources: {CPU: 1}
  head:
    max_workers: 0
    resources: {CPU: 0}
head_node_type: head
provider: {type: external}

2026-11-30 14:21:29,266	WARNING util.py:279 -- Dropping the empty legacy field head_node.
""".replace("{space}", " ")
OLD = (
    "2026-11-30 14:21:37,732	INFO autoscaler.py:361 -- StandardAutoscaler: {'cluster_name': 'default', "
    "'provider': {'type': 'readonly', 'use_node_id_as_ip': True}, 'available_node_types': {}}\n"
)
GENERATE = {"uniemo/pool": "generate"}


def node(labels: dict[str, str], **resources: float) -> dict[str, Any]:
    return {"NodeManagerHostname": "host-1", "Labels": labels, "Resources": resources}


def test_the_log_of_an_autoscaler_tells_its_machines() -> None:
    found = read_growth(NEW.replace("painters", "older") + NEW)
    assert not found.is_static
    assert found.types == (
        MachineType(
            "painters", {"CPU": 7, "memory": 18_000_000_000}, GENERATE | {"ray.io/market-type": "spot"}
        ),
    )
    assert read_growth(OLD) == Growth(is_static=True)
    assert read_growth(OLD.replace("readonly", "aws")) == Growth()
    assert read_growth("monitor: started\n") == Growth()
    assert read_growth(NEW.replace("type: external", "type: readonly")) == Growth(is_static=True)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_local_ray_does_not_grow() -> None:
    assert growth() == Growth(is_static=True)


@pytest.mark.parametrize(
    ("pool", "words"),
    [
        (Pool(name="generate", labels={"uniemo/pool": "genrate"}), "did you mean uniemo/pool=generate?"),
        (
            Pool(name="generate", labels={"uniemo/pool": "genrate"}),
            "no type of the autoscaler has uniemo/pool=genrate",
        ),
        (
            Pool(name="generate", labels={"uniemo/pool": "never"}),
            "no type of the autoscaler has uniemo/pool=never",
        ),
        (Pool(name="generate", labels=GENERATE, cpus=8), "takes 8 CPUs"),
        (Pool(name="generate", labels=GENERATE, memory_gb=20), "20 GB of memory, which no machine"),
    ],
)
def test_what_no_type_offers_is_one_line(pool: Pool, words: str) -> None:
    with pytest.raises(ValueError, match=r"^resources\.pools\.generate") as error:
        judge_pools([pool, Pool(name="data")], [], read_growth(NEW))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_what_a_type_or_a_machine_offers_is_accepted() -> None:
    wanted = Pool(name="generate", labels=GENERATE, cpus=7, memory_gb=16)
    judge_pools([wanted], [], read_growth(NEW))
    judge_pools([wanted], [node(GENERATE, CPU=8, memory=2**35)], Growth(is_static=True))
    second = Pool(name="generate", labels={"uniemo/pool": "x"}, fallback=(GENERATE,))
    judge_pools([second], [], read_growth(NEW))


def test_on_a_static_cluster_only_its_machines_count() -> None:
    with pytest.raises(ValueError, match=r"labels: no machine has uniemo/pool=generate$"):
        judge_pools([Pool(name="generate", labels=GENERATE)], [node({}, CPU=8)], Growth(is_static=True))


def test_where_nobody_can_tell_it_is_only_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        judge_pools([Pool(name="generate", labels=GENERATE)], [node({}, CPU=8)], Growth())
    assert "its steps wait for one" in caplog.text


def test_labels_that_ray_refuses_are_named() -> None:
    pools = {"train": {"memory_gb": 1, "labels": {"a/b/c": "d"}}}
    with pytest.raises(ValueError, match=r"resources\.pools\.train\.labels: Invalid label key prefix `a/b`"):
        check_labels(Config(resources={"pools": pools}))
    pools = {"generate": {"memory_gb": 1, "labels": {"a": "b"}, "fallback": [{"a": "in(b"}]}}
    with pytest.raises(
        ValueError, match=r"resources\.pools\.generate\.fallback: Invalid label selector value"
    ):
        check_labels(Config(resources={"pools": pools}))
