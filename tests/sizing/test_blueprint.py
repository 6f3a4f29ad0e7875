"""Parameters counted without weights are those of the real models."""

from collections import Counter

import pytest

from tests.training.test_stage import alpha, as_settings, settings
from uniemo_ray.config import Config
from uniemo_ray.models.uniemo import part_of
from uniemo_ray.sizing.architectures import SD15, SDXL, find_architecture
from uniemo_ray.sizing.blueprint import build_blueprint, count, part_sizes
from uniemo_ray.training.stage import build_stage


def test_published_sizes() -> None:
    """The parameter counts that the published weights have."""
    config = Config.model_validate({"encoder": {"clip": "ViT-L-14", "queries": "none"}})
    blueprint = build_blueprint(config, SD15, names=(0, 0))
    assert count(blueprint.denoiser) == 859_520_964
    assert count(blueprint.vae) == 83_653_863
    assert [count(part) for part in blueprint.text_encoders] == [123_060_480]
    assert count(blueprint.net.encoder.visual) == 303_966_208
    assert all(p.is_meta for p in blueprint.net.parameters())


def test_published_sizes_of_sdxl() -> None:
    config = Config.model_validate({"encoder": {"clip": "ViT-B-32"}})
    blueprint = build_blueprint(config, SDXL, names=(254, 409))
    assert count(blueprint.denoiser) == 2_567_463_684
    assert [count(part) for part in blueprint.text_encoders] == [123_060_480, 694_659_840]
    assert blueprint.net.fusion.offset.shape == (768 + 1280,)
    assert len(blueprint.net.objects.names) == 409


@pytest.mark.parametrize("denoiser", ["frozen", "lora", "full"])
def test_tiny_counts_equal_the_training_jobs(folders, denoiser) -> None:
    sections = {"diffusion": {"denoiser": denoiser, "lora_rank": 2}}
    values = settings(folders, "joint", coefficients=alpha(), sections=sections)
    config = Config.model_validate(values["config"])
    shape = find_architecture(config.diffusion.model)
    sizes = {part.name: part for part in part_sizes(build_blueprint(config, shape, names=(3, 4)), config)}

    for stage, attribute in (("understanding", "stage1"), ("joint", "stage2")):
        parts = build_stage(as_settings({**values, "stage": stage}))
        real: Counter[str] = Counter()
        for name, parameter in parts.exports["net"].named_parameters():
            real[part_of(name)] += parameter.numel() if parameter.requires_grad else 0
        if "denoiser" in parts.exports:
            real["denoiser"] = sum(
                p.numel() for p in parts.exports["denoiser"].parameters() if p.requires_grad
            )
        assert {name: getattr(part, attribute) for name, part in sizes.items()} == {
            name: real[name] for name in sizes
        }
    assert (sizes["denoiser"].stage2 > 0) == (denoiser != "frozen")


def test_unknown_models_are_named() -> None:
    config = Config.model_validate({"encoder": {"clip": "ViT-Q"}})
    with pytest.raises(ValueError, match="unknown CLIP 'ViT-Q'"):
        build_blueprint(config, SD15, names=(0, 0))
