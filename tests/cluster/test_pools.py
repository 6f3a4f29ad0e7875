"""Pools against worker groups and machine types."""

import pytest

from tests.cluster.conftest import built, lines
from tools.cluster_check.command import ROOT
from tools.cluster_check.documents import clusters
from tools.cluster_check.faults import Document
from tools.cluster_check.pools import (
    Machines,
    Pool,
    check_pools,
    of_groups,
    pools_of_run,
    pools_of_service,
)
from uniemo_ray.config import Config, GenerationConfig, ResourceConfig
from uniemo_ray.settings_file import load_config

RUN = str(ROOT / "cluster/kuberay/base/run.yaml")


def groups(doc: Document) -> list[Machines]:
    (cluster,) = clusters([doc])
    return of_groups(cluster)


def l4(**fields: float) -> Machines:
    return Machines(
        **{
            "name": "generate",
            "cpus": 7,
            "gpus": 1,
            "memory": 18e9,
            "counted": 28e9,
            "labels": {"uniemo/pool": "generate"},
        }
        | fields
    )


def faults(pool: Pool, *machines: Machines) -> str:
    return lines(check_pools({"generate": pool}, list(machines), "f", ""))


def test_the_groups_are_what_ray_sees(rayjob):
    data, train, generate, ondemand = groups(rayjob)
    assert (data.name, data.cpus, data.gpus, data.labels["uniemo/pool"]) == ("data", 15, 0, "data")
    assert (train.gpus, train.labels["ray.io/accelerator-type"]) == (8, "A100")
    assert generate.memory == pytest.approx(0.65 * 26 * 2**30)
    assert (generate.labels["ray.io/market-type"], ondemand.labels["ray.io/market-type"]) == (
        "spot",
        "on-demand",
    )


@pytest.mark.parametrize("name", ["base", "overlays/eks", "overlays/gke"])
def test_every_pool_of_the_run_has_machines(name, need_kubectl):
    pools = pools_of_run(load_config(RUN, []))
    assert set(pools) == {"data", "features", "generate", "train"}
    assert all(pool.labels for pool in pools.values())
    (job,) = [doc for doc in built(name) if doc["kind"] == "RayJob"]
    assert lines(check_pools(pools, groups(job), name, "")) == ""


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("generate.labels={uniemo/pool: genrate}", "there are no machines with uniemo/pool=genrate"),
        ("train.cpus=100", "pool train: one takes 100 CPUs"),
        ("data.labels={uniemo/pool: head}", "pool data: there are no machines with uniemo/pool=head"),
    ],
)
def test_a_setting_of_the_run_that_no_group_meets_is_found(rayjob, setting, expected):
    pools = pools_of_run(load_config(RUN, [f"resources.pools.{setting}"]))
    assert expected in lines(check_pools(pools, groups(rayjob), "f", ""))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"labels": {"uniemo/pool": "genrate"}}, "there are no machines with uniemo/pool=genrate"),
        (
            {"fallback": [{"ray.io/market-type": "spto"}]},
            "there are no machines with ray.io/market-type=spto",
        ),
        ({"cpus": 8}, "one takes 8 CPUs, 1 GPUs and 16 GB, and generate offers 7 CPUs, 1 GPUs and 18.0 GB"),
        ({"gpus": 2}, "one takes 6 CPUs, 2 GPUs"),
        ({"memory_gb": 20}, "20 GB, and generate offers 7 CPUs, 1 GPUs and 18.0 GB"),
        (
            {"gpus": 0.25, "cpus": 1, "memory_gb": 6},
            "4 actors fit by CPUs and GPUs and take 24 GB; a node of generate offers 18.0",
        ),
        (
            {"labels": {"uniemo/pool": "!in(generate)"}},
            "there are no machines with uniemo/pool=!in(generate)",
        ),
    ],
)
def test_a_pool_without_machines_is_found(fields, expected):
    base = {"cpus": 6, "gpus": 1, "memory_gb": 16, "labels": {"uniemo/pool": "generate"}}
    assert faults(Pool(**base), l4()) == ""
    assert expected in faults(Pool(**base | fields), l4())


def test_selectors_of_ray_are_understood():
    pool = Pool(cpus=1, gpus=1, memory_gb=1, labels={"uniemo/pool": "in(train, generate)", "zone": "!a"})
    assert faults(pool, l4()) == ""


def test_memory_that_autoscaling_counts_but_a_node_does_not_offer_is_found(rayjob):
    """26Gi of a Pod hold an actor of 20 GB, but its Ray node keeps a part for the object store."""
    pool = {"generate": Pool(cpus=6, gpus=1, memory_gb=20, labels={"uniemo/pool": "generate"})}
    assert "generate offers 7 CPUs, 1 GPUs and 18.1 GB" in lines(check_pools(pool, groups(rayjob), "f", ""))


def test_memory_is_a_trap_even_where_a_larger_machine_would_do(rayjob):
    pools = {"an actor": Pool(cpus=6, gpus=1, memory_gb=20)}
    found = lines(check_pools(pools, groups(rayjob), "f", ""))
    assert "20 GB; the autoscaler counts 27.9 GB for generate, but its node offers 18.1" in found
    assert "train" not in found
    fitting = {"an actor": Pool(cpus=6, gpus=1, memory_gb=18)}
    assert lines(check_pools(fitting, groups(rayjob), "f", "")) == ""
    larger = {"an actor": Pool(cpus=6, gpus=1, memory_gb=30)}  # no Pod of generate is ever started for it
    assert lines(check_pools(larger, groups(rayjob), "f", "")) == ""


def test_a_replica_without_machines_is_found(rayservice):
    config = {"applications": [{"args": {"generation": {"num_cpus": 2, "num_gpus": 0.7}}}]}
    assert lines(check_pools(pools_of_service(config), groups(rayservice), "f", "")) == ""
    config["applications"][0]["args"]["generation"]["num_gpus"] = 2
    found = lines(check_pools(pools_of_service(config), groups(rayservice), "f", ""))
    assert "pool a replica for generation: one takes 2 CPUs, 2 GPUs" in found


def test_a_run_without_pools_asks_for_what_its_other_settings_say():
    config = Config(
        resources=ResourceConfig(use_gpu=True, cpus_per_worker=8, gpus_per_actor=0.5, memory_gb_per_actor=9),
        generation=GenerationConfig(threads=12, micro_batch=12),
    )
    pools = pools_of_run(config)
    assert pools["features"] == Pool(cpus=8, gpus=0.5, memory_gb=9.66)
    assert (pools["generate"].cpus, pools["generate"].gpus) == (12, 1)
    assert "one takes 12 CPUs" in faults(pools["generate"], l4())
