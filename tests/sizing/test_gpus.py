"""Operations and hours of a run."""

import pytest

from uniemo_ray.settings_file import load_config
from uniemo_ray.sizing.architectures import find_architecture
from uniemo_ray.sizing.blueprint import build_blueprint
from uniemo_ray.sizing.flops import ImageFlops, image_flops
from uniemo_ray.sizing.gpus import GPUS, UTILISATION, find_gpu, gpu_hours

FLOPS = ImageFlops(stage1=1e12, stage2=4e12, generated=80e12, latent=1e12, feature=0.2e12)


def count(*overrides: str) -> ImageFlops:
    config = load_config("vit_l14_sd15", list(overrides))
    shape = find_architecture(config.diffusion.model)
    return image_flops(build_blueprint(config, shape, names=(254, 409)), shape, config)


@pytest.mark.slow
def test_the_published_figures_of_the_real_architectures_come_out():
    """A call of Stable Diffusion 1.5's denoiser is 0.80 TFLOP at 512 pixels, CLIP L/14 is 162 GFLOP."""
    made = count("diffusion.steps=10", "diffusion.guidance=1", "stage2.gradient_checkpointing=false")
    guided = count("diffusion.steps=10", "diffusion.guidance=4", "stage2.gradient_checkpointing=true")
    call = (guided.generated - made.generated) / 10
    assert call == pytest.approx(0.803e12, rel=0.01)
    assert made.generated - 10 * call == pytest.approx(2.51e12, rel=0.01)
    assert made.feature == pytest.approx(162e9, rel=0.01)
    assert 3 * made.feature < made.stage1 < 4 * made.feature  # the queries add to the tower
    assert made.stage2 == pytest.approx(made.stage1 + 1.67e12, rel=0.01)  # no gradients of frozen weights
    assert guided.stage2 == pytest.approx(made.stage2 + call + made.stage1 / 3, rel=0.01)


def test_hours_are_operations_by_rates():
    gpu = GPUS["a100"]
    hours = gpu_hours(
        gpu,
        FLOPS,
        stage1_images=1000,
        stage2_images=500,
        generated=100,
        clip_passes=50,
        latents=20,
        training="bf16",
        generation="tf32",
    )
    assert hours.training == pytest.approx(3000e12 / (312e12 * UTILISATION) / 3600)
    assert hours.generation == pytest.approx(8000e12 / (156e12 * UTILISATION) / 3600)
    assert hours.frozen == pytest.approx(30e12 / (156e12 * UTILISATION) / 3600)
    assert hours.total == pytest.approx(hours.training + hours.generation + hours.frozen)


@pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS.keys())
def test_narrower_numbers_are_faster(gpu):
    assert gpu.fp32 < gpu.tf32 < gpu.bf16


def test_an_unknown_gpu_names_those_that_are_known():
    assert find_gpu("A100") is GPUS["a100"]
    with pytest.raises(ValueError, match="no rates of a GPU 'tpu': expected one of l4, l40s, a100, h100"):
        find_gpu("tpu")
