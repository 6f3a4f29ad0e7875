"""The presets of the paper's size fit the machine that the paper used, and take what the page says."""

import re
from pathlib import Path

import pytest

from uniemo_ray.settings_file import load_config
from uniemo_ray.sizing.plan import Plan, make_plan

PAGE = (Path(__file__).parents[2] / "docs" / "reproducing.md").read_text()
LARGEST = ("vit_l14_sd15", "vit_l14_sdxl")
SMALLER = ("vit_b32_sd15", "vit_b16_sd15")
OTHERS = (*SMALLER, *(f"{name}_released" for name in (*SMALLER, *LARGEST)))


def plan_of(*overrides: str) -> Plan:
    config = load_config("jobs/configs/paper.yaml", list(overrides))
    assert (config.resources.workers, config.stage1.batch_size) == (4, 128)
    return make_plan(config, gpu_memory_bytes=48_000_000_000)


def needs(plan: Plan) -> list[str]:
    """GB on each GPU in both stages, as the page writes them."""
    return [f"{stage.options[stage.chosen].total / 1e9:.1f}" for stage in plan.memory]


@pytest.mark.parametrize(
    "preset", [*LARGEST, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
)
def test_a_preset_fits_the_papers_gpus_and_takes_what_the_page_says(preset: str) -> None:
    plan = plan_of(f"preset={preset}")
    assert plan.has_activations
    assert plan.warnings == ()
    (row,) = re.findall(rf"^ *\| `{preset}` \| ([\d.]+) \| ([\d.]+) \|$", PAGE, re.MULTILINE)
    assert list(row) == needs(plan)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ("stage2.gradient_checkpointing=false",),
            "(without it stage 2 of\n  `vit_l14_sd15` takes {} GB)",
        ),
        pytest.param(
            ("preset=vit_l14_sdxl", "diffusion.frozen_dtype=fp32"),
            "`diffusion.frozen_dtype: bf16` (without it {} GB)",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_without_their_memory_settings_they_take_more(overrides: tuple[str, ...], sentence: str) -> None:
    plan = plan_of(*overrides)
    assert sentence.format(needs(plan)[1]) in PAGE
