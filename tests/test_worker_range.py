"""Settings of a number of workers that follows the machines."""

import pytest
from pydantic import ValidationError

from uniemo_ray.config import ResourceConfig, WorkerRange
from uniemo_ray.distributed.room import demand
from uniemo_ray.distributed.training.train_stage import _worker_count
from uniemo_ray.settings_file import load_config
from uniemo_ray.sizing.plan import make_plan
from uniemo_ray.store.steps import Step, StepOutput


def test_a_number_and_bounds_are_both_read() -> None:
    fixed = load_config(None, ["resources.workers=4"]).resources
    assert (fixed.least_workers, fixed.most_workers, _worker_count(fixed)) == (4, 4, 4)
    elastic = load_config(None, ["resources.workers={min: 2, max: 8}"]).resources
    assert elastic.workers == WorkerRange(min=2, max=8)
    assert (elastic.least_workers, elastic.most_workers, _worker_count(elastic)) == (2, 8, (2, 8))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{min: 3, max: 2}", "min 3 is above max 2"),
        ("{min: 0, max: 2}", "greater than or equal to 1"),
        ("0", "greater than or equal to 1"),
        ("{min: 1, most: 2}", r"resources\.workers\.bounds\.most: unknown setting"),
        ("many", r"resources\.workers\.number: Input should be a valid integer"),
        ("{min: 1, max: 200}", "batch_size 128 is less than one pass of 1 images for each of 200 workers"),
    ],
)
def test_other_numbers_are_refused(value: str, message: str) -> None:
    with pytest.raises((ValidationError, ValueError), match=message):
        load_config(None, [f"resources.workers={value}"])


def test_a_batch_need_not_split_over_every_number_within_bounds() -> None:
    load_config(None, ["resources.workers={min: 1, max: 7}"])


def test_a_stage_starts_with_room_for_the_least_and_counts_as_the_most() -> None:
    config = load_config(None, ["resources.workers={min: 2, max: 8}", "resources.cpus_per_worker=3"])
    step = Step("understanding", {}, (), lambda _: StepOutput(), 1, "", "", "workers")
    assert demand(step, config, nodes=4, is_running=False).cpus == 6
    assert demand(step, config, nodes=4, is_running=True).cpus == 24


def test_a_plan_counts_memory_for_the_least_and_time_for_the_most() -> None:
    def plan(workers: str):
        config = load_config(None, [f"resources.workers={workers}"])
        return make_plan(config, gpu_memory_bytes=24 << 30, with_activations=False)

    elastic, least, most = plan("{min: 2, max: 8}"), plan("2"), plan("8")
    assert elastic.memory == least.memory != most.memory
    assert elastic.gpus == most.gpus
    assert elastic.work == most.work


def test_bounds_are_settings_of_their_own() -> None:
    assert ResourceConfig(workers=WorkerRange(min=1, max=1)).most_workers == 1
