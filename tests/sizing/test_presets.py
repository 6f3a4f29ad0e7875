"""The presets of the paper's size fit the machine that the paper used: four GPUs of 48 GB."""

import pytest

from uniemo_ray.config import load_config
from uniemo_ray.sizing.plan import make_plan

LARGEST = ("vit_l14_sd15", "vit_l14_sdxl")
OTHERS = ("vit_b32_sd15", "vit_b16_sd15", *(f"{name}_released" for name in LARGEST))


@pytest.mark.parametrize(
    "preset", [*LARGEST, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
)
def test_a_preset_fits_the_papers_gpus(preset: str) -> None:
    config = load_config("jobs/configs/paper.yaml", [f"preset={preset}"])
    assert (config.resources.workers, config.stage2.batch_size) == (4, 128)
    plan = make_plan(config, gpu_memory_bytes=48_000_000_000)
    assert plan.has_activations
    assert plan.warnings == ()


def test_without_their_memory_settings_they_would_not() -> None:
    config = load_config("jobs/configs/paper.yaml", ["stage2.gradient_checkpointing=false"])
    (warning,) = make_plan(config, gpu_memory_bytes=48_000_000_000).warnings
    assert "stage 2 needs about" in warning
