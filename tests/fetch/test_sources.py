"""What is fetched for each preset."""

import pytest

from uniemo_ray.fetch.sources import L14, PRESETS, SD15, SDXL, sources_of


def test_every_preset_names_real_files():
    for sources in PRESETS.values():
        assert [source.folder for source in sources] == ["clip", "diffusion"]
    assert sources_of("vit_l14_sdxl_released") == (L14, SDXL)
    assert "text_encoder_2/model" in SDXL.weights
    assert "text_encoder_2/model" not in SD15.weights
    for source in (SD15, SDXL):
        assert len(source.revision) == 40
    with pytest.raises(ValueError, match=r"'tiny'.*part of the package"):
        sources_of("tiny")
