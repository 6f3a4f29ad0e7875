import logging

import pytest
import torch

from tests.models.tiny import OBJECTS, SCENES, TEXT_WIDTH, make_net, pictures
from uniemo_ray.config import Config
from uniemo_ray.models.build import build_net, empty_net
from uniemo_ray.models.clip import embed_names, image_features


def test_net_holds_a_copy_of_the_tower(clip):
    before = image_features(clip, pictures())
    net = make_net(clip)
    assert torch.equal(net.encoder.visual.conv1.weight, clip.model.visual.conv1.weight)
    assert net.encoder.visual.conv1.weight.requires_grad
    net.encoder.visual.conv1.weight.data.zero_()
    assert torch.equal(image_features(clip, pictures()), before)
    assert not any(p.requires_grad for p in clip.model.parameters())


def test_bases_hold_clips_name_embeddings(clip):
    net = make_net(clip)
    assert net.scenes.names == SCENES
    torch.testing.assert_close(net.scenes.embeddings, embed_names(clip, SCENES))
    torch.testing.assert_close(net.objects.embeddings, embed_names(clip, OBJECTS))


@pytest.mark.parametrize("queries", ["none", "single_step", "multi_stage"])
def test_empty_net_takes_a_saved_state(clip, queries):
    sections = {"encoder": {"queries": queries, "query_length": 3, "interactive_layers": 1}}
    net = make_net(clip, words=torch.randn(20, TEXT_WIDTH), **sections)
    net.scenes.set_coefficients({"beach": [0.125] * 8})
    again = empty_net(
        Config.model_validate(sections),
        clip_config=clip.config["model_cfg"],
        scene_names=SCENES,
        object_names=OBJECTS,
        text_width=TEXT_WIDTH,
    )
    again.load_state_dict(net.state_dict())
    emotion = torch.tensor([0, 1])
    with torch.no_grad():
        a, b = (n.condition(n(pictures()).features, emotion) for n in (net, again))
    assert torch.equal(a.vector, b.vector)


def test_data_without_attributes_still_builds(clip):
    net = build_net(Config(), clip=clip, scene_names=(), object_names=(), text_width=TEXT_WIDTH).eval()
    got = net.condition(net(pictures()).features, torch.tensor([0, 1]))
    assert got.scene_index.tolist() == [-1, -1]
    assert got.scene_weight.tolist() == [0, 0]
    assert got.vector.shape == (2, TEXT_WIDTH)


def test_members_without_queries(clip, caplog):
    with caplog.at_level(logging.INFO, logger="uniemo_ray.models.build"):
        net = make_net(clip, encoder={"queries": "none"}, fusion={"members": ["patch", "scene", "cls"]})
    assert net.fusion.members == ("patch", "cls")
    assert "fusion.members" in caplog.text
    with pytest.raises(ValueError, match="all need queries"):
        make_net(clip, encoder={"queries": "none"}, fusion={"members": ["scene"]})
