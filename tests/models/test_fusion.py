import pytest
import torch

from uniemo_ray.models.encoder import Features
from uniemo_ray.models.fusion import ConditionFusion


@pytest.fixture
def features():
    torch.manual_seed(0)
    return Features(torch.randn(2, 4), torch.randn(2, 5, 4), torch.randn(2, 4), torch.randn(2, 4))


def fuse(fusion, features, *, scene=(0.3, 0.0), object_=(0.5, 1.0)):
    return fusion(features, scene_weight=torch.tensor(scene), object_weight=torch.tensor(object_))


def test_equals_equation_six_by_hand(features):
    torch.manual_seed(1)
    fusion = ConditionFusion(4, 3, ("cls", "scene", "object"))

    def phi(name, x):
        first, _, last = fusion.phi[name]
        return (x @ first.weight.T + first.bias).clamp(min=0) @ last.weight.T + last.bias

    expected = (
        torch.tensor([[0.3], [0.0]]) * phi("scene", features.scene)
        + torch.tensor([[0.5], [1.0]]) * phi("object", features.object)
        + phi("cls", features.cls)
    )
    torch.testing.assert_close(fuse(fusion, features), expected)


def test_patch_member_is_the_mean_with_weight_one(features):
    torch.manual_seed(1)
    fusion = ConditionFusion(4, 3, ("patch",))
    expected = fusion.phi["patch"](features.patches.mean(dim=1))
    torch.testing.assert_close(fuse(fusion, features), expected)


def test_an_attribute_of_weight_zero_does_not_count(features):
    fusion = ConditionFusion(4, 3, ("cls", "scene"))
    changed = features._replace(scene=features.scene + 5)
    a, b = fuse(fusion, features), fuse(fusion, changed)
    assert torch.equal(a[1], b[1])  # weight 0
    assert not torch.allclose(a[0], b[0])


def test_starts_where_words_live(features):
    words = torch.randn(50, 3, generator=torch.Generator().manual_seed(2)) * torch.tensor([1.0, 4.0, 0.1]) + 7
    torch.manual_seed(1)
    fusion = ConditionFusion(4, 3, ("cls", "scene"))
    nothing = Features(*(torch.zeros_like(f) for f in features))
    fusion.start_at_words(words)
    for phi in fusion.phi.values():
        phi[0].bias.data.zero_()
    torch.testing.assert_close(fuse(fusion, nothing), words.mean(dim=0).expand(2, 3))

    fused = fuse(fusion, features)
    raw = fuse_raw(fusion, features)
    torch.testing.assert_close(fused, words.mean(dim=0) + words.std(dim=0) * raw)
    assert {"offset", "scale"} <= fusion.state_dict().keys()
    assert not any(name in ("offset", "scale") for name, _ in fusion.named_parameters())


def fuse_raw(fusion, features):
    fresh = ConditionFusion(4, 3, fusion.members)
    fresh.phi.load_state_dict(fusion.phi.state_dict())
    return fuse(fresh, features)


def test_gradients_reach_the_features_from_the_start(features):
    fusion = ConditionFusion(4, 3, ("cls", "scene", "object"))
    fusion.start_at_words(torch.randn(9, 3))
    live = Features(*(f.requires_grad_() for f in features))
    fuse(fusion, live, scene=(0.3, 0.2)).pow(2).sum().backward()
    assert all(f.grad.abs().max() > 0 for f in (live.cls, live.scene, live.object))


def test_several_text_encoders_share_the_hidden_layer(features):
    fusion = ConditionFusion(4, (3, 5), ("cls",))
    assert fuse(fusion, features).shape == (2, 8)


def start(members, *, seed, name="cls"):
    return ConditionFusion(4, 3, members, seed=seed).phi[name][0].weight


def test_a_member_starts_alike_whatever_else_is_fused():
    assert torch.equal(start(("cls",), seed=5), start(("scene", "cls", "object"), seed=5))
    assert not torch.equal(start(("cls",), seed=5), start(("cls",), seed=6))
    assert not torch.equal(start(("cls", "scene"), seed=5), start(("cls", "scene"), seed=5, name="scene"))


def test_without_a_seed_torch_decides_the_start():
    starts = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        starts.append(start(("cls",), seed=None))
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_a_mapped_feature_is_what_it_adds_to_the_condition_at_weight_one(features):
    fusion = ConditionFusion(4, 3, ("cls", "scene"))
    fusion.start_at_words(torch.randn(9, 3, generator=torch.Generator().manual_seed(2)))
    without = fuse(fusion, features, scene=(0.0, 0.0))
    with_scene = fuse(fusion, features, scene=(1.0, 1.0))
    torch.testing.assert_close(fusion.mapped("scene", features.scene), with_scene - without)


def test_missing_queries_are_named(features):
    fusion = ConditionFusion(4, 3, ("cls", "scene"))
    with pytest.raises(ValueError, match=r"fusion\.members holds 'scene'"):
        fuse(fusion, features._replace(scene=None))


@pytest.mark.parametrize("shape", [(9, 4), (1, 3), (3,)])
def test_unsuitable_words_are_refused(shape):
    with pytest.raises(ValueError, match="width 3"):
        ConditionFusion(4, 3, ("cls",)).start_at_words(torch.zeros(shape))
