"""Can a worker's CPUs feed its GPU?"""

import pytest

from uniemo_ray.settings_file import load_config
from uniemo_ray.sizing.feeding import DECODED_PER_CPU, Feeding
from uniemo_ray.sizing.plan import Rates, make_plan

GPU = ["resources.use_gpu=true", "stage1.precision=bf16", "stage2.precision=bf16"]
OPTIONS = {"gpu_memory_bytes": 10**11, "with_activations": False}


def test_cpus_that_would_be_enough() -> None:
    found = Feeding(stage=1, cpus=1, decoded=100, needed=250)
    assert (found.is_starved, found.enough_cpus) == (True, 4)  # three decode, one trains
    assert not Feeding(stage=1, cpus=3, decoded=300, needed=250).is_starved


def test_a_starved_gpu_is_a_line_of_the_plan() -> None:
    plan = make_plan(load_config(None, GPU), rates=Rates(images_per_second=1000), **OPTIONS)
    assert [(f.stage, f.cpus, f.decoded, f.needed) for f in plan.feeding] == [
        (1, 1, DECODED_PER_CPU, 1000),
        (2, 1, DECODED_PER_CPU, 1000),
    ]
    lines = [line for line in plan.notes if "the GPU waits for images" in line]
    assert [line[:8] for line in lines] == ["Stage 1:", "Stage 2:"]
    assert "Set resources.cpus_per_worker to 8, or stage1.decode to cluster" in lines[0]
    many = load_config(None, [*GPU, "resources.cpus_per_worker=8"])
    assert not any(
        "waits" in line for line in make_plan(many, rates=Rates(images_per_second=1000), **OPTIONS).notes
    )
    cluster = load_config(None, [*GPU, "stage1.decode=cluster", "stage2.decode=cluster"])
    assert not any(
        "waits" in line for line in make_plan(cluster, rates=Rates(images_per_second=1000), **OPTIONS).notes
    )


def test_without_a_gpu_nothing_is_said() -> None:
    plan = make_plan(load_config(None, []), **OPTIONS)
    assert plan.feeding == ()


@pytest.mark.slow
def test_needs_at_the_papers_size_are_estimated_from_operations() -> None:
    """ViT-L/14 with queries: 0.2 TFLOP forward; the UNet of Stable Diffusion 1.5 at 512 pixels: 0.8."""
    config = load_config(
        "vit_l14_sd15",
        [
            "data.kind=emoset",
            "data.root=/data",
            "stage1.gradient_checkpointing=false",
            "stage2.gradient_checkpointing=false",
            *GPU,
        ],
    )
    first, second = make_plan(config, **OPTIONS).feeding
    assert first.needed == pytest.approx(0.4 * 312e12 / (3 * 0.204e12), rel=0.05)
    assert second.needed == pytest.approx(0.4 * 312e12 / (3 * 0.204e12 + 2 * 0.803e12), rel=0.15)
