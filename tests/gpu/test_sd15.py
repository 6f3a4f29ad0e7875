"""Stable Diffusion 1.5's own architecture: a step of stage 2, and images, in every number format."""

import math

import numpy as np
import pytest

from benchmarks.random_models import make_painter
from tests.gpu.models import SIZE_PX, STAGE_2_BATCH, batch, joint_engine, make_config, net_of, sd15
from uniemo_ray.inference.requests import Painting, Request, SamplingSettings, Share
from uniemo_ray.models.speed import tune_diffusion

pytestmark = pytest.mark.gpu
DTYPES = ("fp32", "bf16", "fp16")
NEAR = {"bf16": 5e-2, "fp16": 2e-2}
"""How far a loss or a norm may be from fp32's, as a share of it."""
NEAR_PIXELS = 6.0
"""Mean difference of two pictures. Unit: steps of 256."""


def test_a_step_of_stage_2_is_near_fp32(process_group: None) -> None:
    metrics = {}
    seen = batch(0, size_px=SIZE_PX, count=STAGE_2_BATCH)
    for precision in DTYPES:
        engine = joint_engine(sd15(), precision=precision)
        metrics[precision] = engine.step(seen).metrics
        assert all(math.isfinite(value) for value in metrics[precision].values())
    for precision, near in NEAR.items():
        for name in ("loss", "diffusion_loss", "class_loss", "gradient_norm"):
            found, exact = (metrics[kind][name] for kind in (precision, "fp32"))
            assert found == pytest.approx(exact, rel=near), f"{name} in {precision}"
            assert found != exact


def paint(dtype: str, device: str) -> np.ndarray:
    """Three pictures in micro-batches of two, (3, H, W, 3)."""
    config = make_config(f"diffusion.frozen_dtype={dtype}")
    painter = make_painter(net_of(config)[0], tune_diffusion(sd15(), config.diffusion), device=device)
    requests = [Request(seed, "<emotion>", (Share("awe", 1.0),)) for seed in range(3)]
    settings = SamplingSettings("unipc", 3, 2.0, SIZE_PX, SIZE_PX, 2)
    painted = painter.paint(requests, settings, threads=1)
    assert all(isinstance(result, Painting) for result in painted)
    return np.stack([result.pixels for result in painted if isinstance(result, Painting)])


def test_images_are_near_fp32_and_equal_when_painted_again(device: str) -> None:
    exact = paint("fp32", device)
    assert exact.std() > 1, "a plain grey picture says nothing"
    assert np.array_equal(paint("fp32", device), exact)
    for dtype in DTYPES[1:]:
        found = paint(dtype, device)
        assert not np.array_equal(found, exact)
        assert np.abs(found.astype(float) - exact).mean() < NEAR_PIXELS, dtype
