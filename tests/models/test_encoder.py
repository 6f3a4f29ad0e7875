import open_clip
import pytest
import torch

from tests.models.tiny import WIDTH, clip_config, make_tower, pictures
from uniemo_ray.config import EncoderConfig
from uniemo_ray.models.encoder import BETA_START, ExpertQueryEncoder
from uniemo_ray.models.interactive import InteractiveBlock
from uniemo_ray.models.random_start import own_stream


def make_encoder(*, layers=6, **settings):
    torch.manual_seed(1)
    config = EncoderConfig(**{"query_length": 3, "interactive_layers": 1} | settings)
    return ExpertQueryEncoder(make_tower(layers=layers), config).eval()


def value(x):
    """A scalar that moves with x; plain sums of a normalised x do not."""
    return (x * torch.linspace(-1, 1, x.numel()).reshape(x.shape)).sum()


def tower_tokens(tower, pixels):
    """Class feature and patches after ln_post, as open_clip itself returns them."""
    tower.output_tokens = True
    pooled, patches = tower(pixels)
    tower.output_tokens = False
    return pooled, patches


@pytest.mark.parametrize("stage_layers", [None, (1, 4)])
@pytest.mark.parametrize("with_grad", [False, True])
def test_without_queries_equals_the_tower_bit_for_bit(stage_layers, with_grad):
    encoder = make_encoder(queries="none", stage_layers=stage_layers)
    with torch.set_grad_enabled(with_grad):
        pooled, patches = tower_tokens(encoder.visual, pictures())
        features = encoder(pictures())
    assert torch.equal(features.cls @ encoder.visual.proj, pooled)
    assert torch.equal(features.patches, patches)
    assert features.scene is None
    assert features.object is None
    assert not any("quer" in name or "beta" in name for name, _ in encoder.named_parameters())


@pytest.mark.parametrize("queries", ["single_step", "multi_stage"])
def test_hidden_queries_leave_the_tower_as_it_is(queries):
    encoder = make_encoder(queries=queries)
    pooled, patches = tower_tokens(encoder.visual, pictures())
    hidden = encoder(pictures(), is_isolated=True)
    torch.testing.assert_close(hidden.cls @ encoder.visual.proj, pooled, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(hidden.patches, patches, atol=1e-5, rtol=1e-5)
    seen = encoder(pictures())
    assert (seen.cls - hidden.cls).abs().max() > 1e-4


def by_hand(encoder, pixels):
    """Equations 1 to 3, written out for six layers cut at 2 and 4."""
    visual, blocks = encoder.visual, encoder.visual.transformer.resblocks
    n, q = 17, 3
    x = visual._embeds(pixels)
    scene, object_ = (s.expand(len(x), -1, -1) for s in (encoder.scene_queries, encoder.object_queries))
    parts = [x, scene] if encoder.config.queries == "multi_stage" else [x, scene, object_]
    x = blocks[1](blocks[0](torch.cat(parts, dim=1)))
    object_ = object_ if encoder.config.queries == "multi_stage" else x[:, n + q :]
    x, scene = x[:, :n], x[:, n : n + q]
    context = x[:, 1:] if encoder.config.interactive_context == "patches" else x
    refined = encoder.scene_block(scene, context)
    is_beta = encoder.config.interactive_residual == "beta"
    scene_hat = scene + encoder.scene_beta * refined if is_beta else refined
    x = blocks[3](blocks[2](torch.cat([x, scene_hat, object_], dim=1)))
    x, scene, object_ = x[:, :n], x[:, n : n + q], x[:, n + q :]
    context = x[:, 1:] if encoder.config.interactive_context == "patches" else x
    refined = encoder.object_block(object_, context)
    object_hat = object_ + encoder.object_beta * refined if is_beta else refined
    x = blocks[5](blocks[4](torch.cat([x, scene, object_hat], dim=1)))
    return visual.ln_post(x[:, 0]), scene_hat.mean(dim=1), object_hat.mean(dim=1)


@pytest.mark.parametrize("queries", ["single_step", "multi_stage"])
@pytest.mark.parametrize("context", ["patches", "tokens"])
@pytest.mark.parametrize("residual", ["beta", "replace"])
def test_follows_the_equations(queries, context, residual):
    encoder = make_encoder(queries=queries, interactive_context=context, interactive_residual=residual)
    if residual == "beta":
        encoder.scene_beta.data.fill_(0.5)
        encoder.object_beta.data.fill_(0.7)
    features = encoder(pictures())
    cls, scene, object_ = by_hand(encoder, pictures())
    torch.testing.assert_close(features.cls, cls)
    torch.testing.assert_close(features.scene, scene)
    torch.testing.assert_close(features.object, object_)


def test_beta_starts_small():
    encoder = make_encoder()
    assert encoder.scene_beta.tolist() == pytest.approx([BETA_START] * WIDTH)
    assert pytest.approx(1e-4) == BETA_START


def seeded(seed, **settings):
    config = EncoderConfig(**{"query_length": 3, "interactive_layers": 1} | settings)
    return ExpertQueryEncoder(make_tower(), config, seed=seed)


def test_a_seed_gives_each_part_the_start_that_its_name_says():
    """Finished runs are made again from their seeds, so these draws must not move."""
    encoder = seeded(7, query_start=0.5, interactive_layers=2)
    for name in ("scene_queries", "object_queries"):
        with own_stream(7, name):
            torch.testing.assert_close(getattr(encoder, name).data, 0.5 * torch.randn(3, WIDTH))
    for name in ("scene_block", "object_block"):
        with own_stream(7, name):
            expected = InteractiveBlock(WIDTH, 2, 2)
        torch.testing.assert_close(getattr(encoder, name).state_dict(), expected.state_dict())


def test_blocks_may_start_as_in_the_released_code():
    block = seeded(7, interactive_start="normal").scene_block
    weights = torch.cat([m.weight.flatten() for m in block.modules() if isinstance(m, torch.nn.Linear)])
    assert weights.std().item() == pytest.approx(0.02, rel=0.1)
    biases = [m.bias for m in block.modules() if isinstance(m, torch.nn.Linear) and m.bias is not None]
    assert all(bias.abs().max() == 0 for bias in biases)
    with own_stream(7, "scene_block"):
        expected = InteractiveBlock(WIDTH, 1, 2)
        expected.start_normal()
    torch.testing.assert_close(block.state_dict(), expected.state_dict())


def test_without_a_seed_torch_decides_the_start():
    starts = []
    for seed in (1, 1, 2):
        tower = make_tower()
        torch.manual_seed(seed)
        config = EncoderConfig(query_length=3, interactive_layers=1)
        starts.append(ExpertQueryEncoder(tower, config).scene_queries)
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_every_parameter_but_the_projection_gets_a_gradient():
    encoder = make_encoder()
    features = encoder(pictures())
    sum(value(part) for part in features).backward()
    without = {name for name, p in encoder.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-9}
    assert without == {"visual.proj"}
    assert not encoder.visual.proj.requires_grad


def test_class_feature_depends_on_both_query_sets():
    encoder = make_encoder()
    for queries in (encoder.scene_queries, encoder.object_queries):
        (gradient,) = torch.autograd.grad(value(encoder(pictures()).cls), queries)
        assert gradient.abs().max() > 1e-4
    scene = encoder(pictures()).scene.sum()
    (gradient,) = torch.autograd.grad(scene, encoder.object_queries, allow_unused=True)
    assert gradient is None  # objects come after the scene


@pytest.mark.parametrize("context", ["patches", "tokens"])
@pytest.mark.parametrize("queries", ["single_step", "multi_stage"])
def test_attention_maps(context, queries):
    encoder = make_encoder(interactive_context=context, queries=queries)
    maps = encoder.attention(pictures(3))
    for grid in maps:
        assert grid.shape == (3, 4, 4)
        assert (grid > 0).all()
        torch.testing.assert_close(grid.sum(dim=(1, 2)), torch.ones(3))
    chain = encoder.chain(pictures(3))
    raw = encoder.scene_block.attention(*chain.scene)[:, -16:]
    torch.testing.assert_close(maps.scene.flatten(1), raw / raw.sum(dim=1, keepdim=True))
    assert not torch.allclose(maps.scene, maps.object)


def test_attention_needs_queries():
    with pytest.raises(ValueError, match=r"encoder\.queries is 'none'"):
        make_encoder(queries="none").attention(pictures())


@pytest.mark.parametrize(("layers", "expected"), [(6, (0, 2, 4, 6)), (12, (0, 4, 8, 12)), (3, (0, 1, 2, 3))])
def test_default_stages_are_thirds(layers, expected):
    assert make_encoder(layers=layers).stage_ends == expected


@pytest.mark.parametrize("stage_layers", [(0, 2), (2, 2), (4, 2), (2, 6), (3, 7)])
def test_layers_that_cannot_be_split_are_refused(stage_layers):
    with pytest.raises(ValueError, match=r"encoder\.stage_layers .* 1 <= L1 < L2 < 6"):
        make_encoder(stage_layers=stage_layers)


def test_two_layers_are_too_few():
    with pytest.raises(ValueError, match=r"encoder\.stage_layers"):
        make_encoder(layers=2)
    plain = make_encoder(layers=2, queries="none")
    assert plain(pictures()).cls.shape == (2, WIDTH)
    assert plain.stage_ends == (0, 0, 0, 2)


def test_another_picture_size_is_refused():
    with pytest.raises(ValueError, match=r"\(32, 32\)"):
        make_encoder()(pictures(side=48))


def test_other_towers_are_refused():
    with pytest.raises(ValueError, match="CLIP ViT"):
        ExpertQueryEncoder(torch.nn.Linear(2, 2), EncoderConfig())
    config = clip_config()
    config["vision_cfg"]["pool_type"] = "avg"
    with pytest.raises(ValueError, match="class token"):
        ExpertQueryEncoder(open_clip.CLIP(**config).visual, EncoderConfig())


@pytest.mark.parametrize("is_isolated", [False, True])
def test_gradient_checkpointing_changes_no_gradient(is_isolated):
    gradients = []
    for is_saving in (False, True):
        encoder = make_encoder().train()
        encoder.visual.set_grad_checkpointing(is_saving)
        features = encoder(pictures(), is_isolated=is_isolated)
        value(torch.stack([features.cls, features.scene])).backward()
        gradients.append((encoder.scene_queries.grad, encoder.visual.positional_embedding.grad))
    assert all(gradient.abs().max() > 1e-4 for gradient in gradients[0])
    torch.testing.assert_close(*gradients)


def test_bf16_autocast_stays_near_fp32():
    encoder = make_encoder()
    exact = encoder(pictures())
    with torch.autocast("cpu", torch.bfloat16):
        rough = encoder(pictures())
    for a, b in zip(exact, rough, strict=True):
        assert (a - b.float()).norm() < 0.03 * a.norm()
    value(exact.cls).backward()
    wanted, encoder.scene_queries.grad = encoder.scene_queries.grad, None
    value(rough.cls.float()).backward()
    assert (wanted - encoder.scene_queries.grad).norm() < 0.1 * wanted.norm()
