"""What is fetched for each preset."""

import re

import pytest

from uniemo_ray.fetch.sources import L14, PRESETS, SD15, SDXL, sources_of


def test_every_preset_names_real_files():
    for sources in PRESETS.values():
        assert [source.folder for source in sources] == ["clip", "diffusion"]
    assert sources_of("vit_l14_sdxl_released") == (L14, SDXL)
    assert "text_encoder_2/model" in SDXL.weights
    assert "text_encoder_2/model" not in SD15.weights
    with pytest.raises(ValueError, match=r"'tiny'.*part of the package"):
        sources_of("tiny")


def test_every_revision_is_a_commit_and_every_clip_has_a_hash():
    every = {source for sources in PRESETS.values() for source in sources}
    assert len(every) == 5
    assert all(re.fullmatch(r"[0-9a-f]{40}", source.revision) for source in every)
    assert len({source.revision for source in every}) == 5
    clips = [source for source in every if source.folder == "clip"]
    hashes = [dict(source.sha256)["open_clip_model.safetensors"] for source in clips]
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in hashes)
    assert len({*hashes}) == 3
