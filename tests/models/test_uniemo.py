import pytest
import torch
from torch.nn import functional as F

from tests.models.tiny import JOINT, OBJECTS, SCENES, TEXT_WIDTH, make_net, pictures
from uniemo_ray.config import LearningRates
from uniemo_ray.models.clip import embed_names
from uniemo_ray.models.uniemo import PARTS, parameter_groups, part_of, set_trainable


def with_coefficients(net):
    rows = torch.rand(7, 8, generator=torch.Generator().manual_seed(3)).softmax(dim=1).tolist()
    net.scenes.set_coefficients(dict(zip(SCENES, rows, strict=False)))
    net.objects.set_coefficients(dict(zip(OBJECTS, rows[3:], strict=False)))
    return net


def test_understanding(clip):
    net = make_net(clip)
    said = net(pictures())
    torch.testing.assert_close(said.logits, net.classifier(net.encoder(pictures()).cls))
    expected = F.normalize(said.features.scene @ net.scene_projection.weight.T, dim=-1)
    torch.testing.assert_close(said.scene_embedding, expected)
    assert said.object_embedding.shape == (2, JOINT)
    torch.testing.assert_close(said.object_embedding.norm(dim=1), torch.ones(2))


def test_condition_finds_weighs_and_fuses(clip):
    net = with_coefficients(make_net(clip))
    said, emotion = net(pictures(5)), torch.tensor([0, 1, 7, 3, 3])
    got = net.condition(said.features, emotion)
    index = (said.scene_embedding @ net.scenes.embeddings.T).argmax(dim=1)
    assert torch.equal(got.scene_index, index)
    torch.testing.assert_close(got.scene_weight, net.scenes.coefficients[index, emotion])
    object_index = (said.object_embedding @ net.objects.embeddings.T).argmax(dim=1)
    torch.testing.assert_close(got.object_weight, net.objects.coefficients[object_index, emotion])
    expected = net.fusion(said.features, scene_weight=got.scene_weight, object_weight=got.object_weight)
    torch.testing.assert_close(got.vector, expected)
    assert got.vector.shape == (5, TEXT_WIDTH)


def test_condition_depends_on_the_wanted_emotion_alone_through_weights(clip):
    net = with_coefficients(make_net(clip))
    features = net(pictures(1)).features
    awe, fear = (net.condition(features, torch.tensor([e])) for e in (1, 6))
    assert not torch.allclose(awe.vector, fear.vector)
    plain = with_coefficients(make_net(clip, fusion={"use_coefficients": False}))
    a, b = (plain.condition(features, torch.tensor([e])) for e in (1, 6))
    assert torch.equal(a.vector, b.vector)
    assert a.scene_weight.tolist() == [1.0]


def test_without_queries(clip):
    net = make_net(clip, encoder={"queries": "none"})
    said = net(pictures())
    assert said.scene_embedding is None
    got = net.condition(said.features, torch.tensor([0, 1]))
    assert got.scene_index is None
    assert got.object_weight.tolist() == [0, 0]
    assert net.fusion.members == ("cls",)
    names = {name for name, _ in net.named_parameters()}
    assert not any(part in name for name in names for part in ("quer", "projection", "beta"))


def test_temperatures(clip):
    fixed = make_net(clip, losses={"temperature": 0.2})
    assert fixed.temperatures() == (0.2, 0.2)
    learnt = make_net(clip, losses={"temperature": 0.2, "learn_temperature": True})
    assert learnt.temperatures().scene.item() == pytest.approx(0.2)
    assert part_of("scene_temperature.log_value") == "queries"
    assert any(name == "object_temperature.log_value" for name, _ in learnt.named_parameters())


def trained_parts(net):
    return {part_of(name) for name, p in net.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("stage", "tower", "joint", "expected"),
    [
        (1, "train", True, {"tower", "queries", "heads"}),
        (1, "frozen", False, {"queries", "heads"}),
        (2, "train", True, set(PARTS)),
        (2, "frozen", True, {"queries", "heads", "fusion"}),
        (2, "train", False, {"heads", "fusion"}),
    ],
)
def test_what_a_stage_trains(clip, stage, tower, joint, expected):
    net = make_net(clip)
    set_trainable(net, stage=stage, tower=tower, joint_training=joint)
    assert trained_parts(net) == expected
    assert all(p.requires_grad == (stage == 1 or joint) for p in net.classifier.parameters())
    assert all(p.requires_grad == (stage == 2) for p in net.condition_head.parameters())
    assert not net.encoder.visual.proj.requires_grad


def test_groups_hold_every_trained_parameter_once_at_its_rate(clip):
    net = make_net(clip, losses={"learn_temperature": True})
    rates = LearningRates(tower=1, queries=2, heads=3, fusion=4)
    groups = parameter_groups(net, rates, 0.5)
    assert [g["name"] for g in groups] == [name for name in PARTS for _ in range(2)]
    rate_of = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert len(rate_of) == sum(len(g["params"]) for g in groups)
    names = dict(net.named_parameters())
    expected = {
        "encoder.visual.conv1.weight": (1, 0.5),
        "encoder.visual.class_embedding": (1, 0),
        "encoder.scene_queries": (2, 0.5),
        "encoder.object_beta": (2, 0),
        "object_projection.weight": (2, 0.5),
        "scene_temperature.log_value": (2, 0),
        "classifier.0.weight": (3, 0.5),
        "condition_head.bias": (3, 0),
        "fusion.phi.cls.2.weight": (4, 0.5),
    }
    assert {name: rate_of[id(names[name])] for name in expected} == expected
    assert {id(p) for p in names.values() if p.requires_grad} == set(rate_of)


def test_the_tower_may_decay_differently(clip):
    net = make_net(clip)
    groups = parameter_groups(net, LearningRates(), 0.5, tower_weight_decay=0.0625)
    assert {(g["name"] == "tower", g["weight_decay"]) for g in groups} == {
        (True, 0.0625),
        (True, 0.0),
        (False, 0.5),
        (False, 0.0),
    }


def test_frozen_parts_have_no_group(clip):
    net = make_net(clip)
    set_trainable(net, stage=2, tower="train", joint_training=False)
    groups = parameter_groups(net, LearningRates(), 0.1)
    assert {g["name"] for g in groups} == {"heads", "fusion"}


def test_mapped_queries_choose_among_all_names(clip):
    """Scenes and objects together, by cosine of what phi makes of the query; every name has another alpha."""
    net = with_coefficients(make_net(clip, text_width=JOINT, fusion={"match": "mapped"}))
    net.fusion.scale.copy_(torch.linspace(0.2, 2, JOINT))
    net.fusion.offset.fill_(3.0)
    features = net(pictures(2)).features
    drawn = torch.randn(2, 64, features.cls.shape[1], generator=torch.Generator().manual_seed(4))
    wide = features._replace(cls=drawn[0], scene=drawn[0], object=drawn[1])
    emotion = torch.arange(64) % 8
    got = net.condition(wide, emotion)
    names = (*OBJECTS, *SCENES)
    assert net.choices("scene") == net.choices("object") == names
    alphas = torch.cat([net.objects.coefficients, net.scenes.coefficients])
    added = {
        kind: net.fusion.scale * net.fusion.phi[kind](feature)
        for kind, feature in (("scene", drawn[0]), ("object", drawn[1]))
    }
    texts = embed_names(clip, names, is_verbatim=True)
    for kind, index, weight in (
        ("scene", got.scene_index, got.scene_weight),
        ("object", got.object_index, got.object_weight),
    ):
        expected = F.cosine_similarity(added[kind][:, None], texts[None], dim=2).argmax(dim=1)
        assert torch.equal(index, expected)
        torch.testing.assert_close(weight, alphas[expected, emotion])
        assert {names[i] in SCENES for i in index} == {True, False}
    expected = (
        net.fusion.offset
        + net.fusion.scale * net.fusion.phi["cls"](drawn[0])
        + got.scene_weight[:, None] * added["scene"]
        + got.object_weight[:, None] * added["object"]
    )
    torch.testing.assert_close(got.vector, expected)


def test_a_mapped_query_that_is_not_fused_finds_nothing(clip):
    net = make_net(clip, text_width=JOINT, fusion={"match": "mapped", "members": ["cls", "object"]})
    got = net.condition(net(pictures(2)).features, torch.tensor([0, 1]))
    assert got.scene_index is None
    assert got.object_index is not None


def test_names_of_another_width_than_conditions_cannot_be_matched(clip):
    with pytest.raises(ValueError, match=rf"conditions are 16 wide and CLIP's names {JOINT}: take"):
        make_net(clip, fusion={"match": "mapped"})
