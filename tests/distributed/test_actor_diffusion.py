"""Latents of the canonical shards, by the diffusion model that the settings name."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests.models.tiny import write_pipeline, write_xl_pipeline
from uniemo_ray.config import load_config
from uniemo_ray.data.images import to_unit_range
from uniemo_ray.distributed.actors.diffusion import LatentActor
from uniemo_ray.distributed.steps.data import vae_settings
from uniemo_ray.models.diffusion import load_diffusion
from uniemo_ray.training.batches import encode_latent


@pytest.mark.parametrize("write", [write_pipeline, write_xl_pipeline])
def test_latents_are_the_named_vaes(write, tmp_path):
    folder = write(tmp_path)
    overrides = [f"diffusion.model={folder}", "diffusion.size_px=16", "diffusion.revision=a"]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    images = []
    for picture in pixels:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, format="PNG")
        images.append(file.getvalue())
    found = LatentActor(vae_settings(load_config(None, overrides)))(pa.table({"image": images}))
    expected = load_diffusion(str(folder)).encode_images(to_unit_range(pixels))
    assert found["latent"].to_pylist() == [encode_latent(latent) for latent in expected]
