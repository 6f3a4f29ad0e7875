"""What a plan says of pools."""

import io

import pytest
from rich.console import Console

from uniemo_ray.report.plan_table import plan_tables
from uniemo_ray.settings_file import load_config
from uniemo_ray.sizing.plan import Plan, Rates, make_plan

POOLS = (
    "resources={workers: 4, pools: {"
    "train: {gpus: 1, cpus: 10, memory_gb: 32, labels: {uniemo/pool: train}, price_per_node_hour: 30}, "
    "generate: {gpus: 1, cpus: 6, memory_gb: 16, actors: 8, labels: {uniemo/pool: generate}, "
    "price_per_node_hour: 0.5}}}"
)


def planned(*settings: str, rates: Rates | None = None, **per_machine: int) -> Plan:
    return make_plan(
        load_config("demo", list(settings)),
        gpu_memory_bytes=48 * 10**9,
        rates=rates,
        with_activations=False,
        per_machine=per_machine,
    )


def table(plan: Plan) -> str:
    console = Console(width=120, file=io.StringIO())
    console.print(plan_tables(plan))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_each_pool_is_counted_and_priced() -> None:
    plan = planned(POOLS, rates=Rates(images_per_second=1, generated_per_second=0.01), train=4)
    train, generate = (
        next(pool for pool in plan.pools if pool.name == name) for name in ("train", "generate")
    )
    assert (train.processes, train.machines, train.cpus, train.gpus, train.memory_gb) == (4, 1, 40, 4, 128)
    assert (generate.processes, generate.machines, generate.gpus) == (8, 8, 8)
    assert plan.cost is not None
    assert train.hours == plan.cost.training_hours
    assert train.cost == pytest.approx(train.hours * 30)
    # 24 images of 8 emotions in two rounds, and 10 of the plain prompt, by eight GPUs of their own
    assert generate.hours == pytest.approx((2 * 24 + 10) * 8 / 0.01 / 8 / 3600)
    assert generate.cost == pytest.approx(generate.hours * 8 * 0.5)
    shown = table(plan)
    assert "Pools, at most" in shown
    assert "Pool train (uniemo/pool=train)" in shown
    assert plan.to_json()["pools"][3]["cost"] == train.cost


def test_a_type_of_gpu_tells_the_hours_of_the_frozen_models() -> None:
    plan = planned("resources.use_gpu=true", rates=Rates(gpu_type="l4"))
    hours = {pool.name: pool.hours for pool in plan.pools}
    assert plan.hours is not None
    assert hours["features"] == pytest.approx(plan.hours.frozen / 2)
    assert hours["train"] == pytest.approx(plan.hours.training / 2)
    assert hours["data"] is None


def test_without_pools_there_is_no_table_of_them() -> None:
    assert "Pools, at most" not in table(planned())


def test_a_pool_that_is_none_is_refused() -> None:
    with pytest.raises(
        ValueError, match="--per-machine painters=2: expected one of data, features, generate"
    ):
        planned(painters=2)
