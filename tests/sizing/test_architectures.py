"""Which architecture a name or a folder stands for."""

import json

import pytest

from tests.models.tiny import TEXT_WIDTH, write_pipeline
from uniemo_ray.models.diffusion import load_diffusion
from uniemo_ray.sizing.architectures import SD15, SDXL, find_architecture


def test_known_names():
    assert (
        find_architecture("sd15") is find_architecture("stable-diffusion-v1-5/stable-diffusion-v1-5") is SD15
    )
    assert find_architecture("stabilityai/stable-diffusion-xl-base-1.0") is SDXL
    assert SDXL.text_widths == (768, 1280)
    assert SDXL.pixels_per_latent == SD15.pixels_per_latent == 8


def test_a_folder_says_it_itself(tmp_path):
    write_pipeline(tmp_path)
    found, loaded = find_architecture(str(tmp_path)), load_diffusion(str(tmp_path))
    assert found.text_widths == (TEXT_WIDTH,)
    assert found.pixels_per_latent == 2
    assert list(found.denoiser["block_out_channels"]) == list(loaded.denoiser.config["block_out_channels"])
    second = tmp_path / "text_encoder_2"
    second.mkdir()
    (second / "config.json").write_text(json.dumps({"hidden_size": 10}))
    assert find_architecture(str(tmp_path)).text_widths == (TEXT_WIDTH, 10)


def test_unknown_names_say_what_to_give():
    with pytest.raises(
        ValueError, match=r"'/nowhere' is neither a diffusers folder \(here or s3://\) .* one of sd15, sdxl"
    ):
        find_architecture("/nowhere")
