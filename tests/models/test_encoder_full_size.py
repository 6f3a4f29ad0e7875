"""The encoder on CLIP's real architectures, with random weights, against open_clip's own image tower."""

import open_clip
import pytest
import torch

from tests.models.tiny import pictures
from uniemo_ray.config import EncoderConfig
from uniemo_ray.models.encoder import ExpertQueryEncoder
from uniemo_ray.settings_file import load_config

ARCHITECTURES = {"ViT-B-32": (12, 768, 49), "ViT-B-16": (12, 768, 196), "ViT-L-14": (24, 1024, 256)}
"""Layers, width and patches."""
NAMES = [name + form for name in ARCHITECTURES for form in ("", "-quickgelu")]


def make_tower(name, *, depth=None):
    """open_clip's image tower; `depth` shortens the stack of equal layers, the text tower is the smallest."""
    config = open_clip.get_model_config(name)
    config["text_cfg"] |= {"layers": 1, "width": 64, "heads": 1, "vocab_size": 8}
    if depth:
        config["vision_cfg"] |= {"layers": depth}
    torch.manual_seed(0)
    visual = open_clip.CLIP(**config).visual.eval().requires_grad_(False)
    # open_clip starts the last norm and positions plainly; random ones leave nothing unseen
    for norm in (visual.ln_pre, visual.ln_post):
        norm.weight.normal_(1, 0.1)
        norm.bias.normal_(0, 0.1)
    return visual


def check_plain(visual):
    encoder = ExpertQueryEncoder(visual, EncoderConfig(queries="none"))
    pixels = pictures(1, side=224)
    visual.output_tokens = True
    with torch.no_grad():
        features = encoder(pixels)
        pooled, patches = visual(pixels)
    assert torch.equal(features.cls @ visual.proj, pooled)
    assert torch.equal(features.patches, patches)
    assert features.scene is None


@pytest.mark.parametrize("name", NAMES)
def test_without_queries_equals_open_clip_exactly(name):
    """Three of the real layers: width, heads, patches, activation and resolution are the real ones."""
    check_plain(make_tower(name, depth=3))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_without_queries_equals_open_clip_exactly_at_real_depth(name):
    visual = make_tower(name)
    layers, width, patches = ARCHITECTURES[name.removesuffix("-quickgelu")]
    assert len(visual.transformer.resblocks) == layers
    assert visual.positional_embedding.shape == (patches + 1, width)
    check_plain(visual)


@pytest.mark.parametrize("name", ["ViT-B-32-quickgelu", "ViT-B-16-quickgelu", "ViT-L-14-quickgelu"])
def test_hidden_queries_change_nothing(name):
    visual = make_tower(name, depth=3)
    encoder = ExpertQueryEncoder(visual, EncoderConfig())
    with torch.no_grad():
        hidden = encoder(pictures(1, side=224), is_isolated=True)
        seen = encoder(pictures(1, side=224))
        pooled = visual(pictures(1, side=224))
    torch.testing.assert_close(hidden.cls @ visual.proj, pooled, atol=2e-5, rtol=1e-4)
    assert (seen.cls - hidden.cls).abs().max() > 1e-3
    assert hidden.scene.shape == (1, visual.conv1.out_channels)


@pytest.mark.parametrize(
    ("preset", "ends"),
    [("vit_b32_sd15", (0, 4, 8, 12)), ("vit_b16_sd15", (0, 4, 8, 12)), ("vit_l14_sd15", (0, 8, 16, 24))],
)
def test_presets_build_at_full_size_on_the_meta_device(preset, ends):
    config = load_config(None, [f"preset={preset}"]).encoder
    with torch.device("meta"):
        visual = open_clip.CLIP(**open_clip.get_model_config(config.clip)).visual
        encoder = ExpertQueryEncoder(visual, config)
    assert encoder.stage_ends == ends
    assert encoder.scene_queries.shape == (32, visual.conv1.out_channels)
    assert encoder.scene_block.layers[0].cross_attn.heads == visual.conv1.out_channels // 64
    assert len(encoder.scene_block.layers) == 2
    assert isinstance(visual.transformer.resblocks[0].mlp.gelu, open_clip.transformer.QuickGELU)
