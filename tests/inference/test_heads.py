"""Scorers: they learn what is there, reproducibly, and fall back to zero-shot without attributes."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from uniemo_ray.config import ScorerConfig
from uniemo_ray.emotions import SENTIMENT
from uniemo_ray.inference.heads import (
    EmotionClassifier,
    LinearHead,
    NameBank,
    ScorerData,
    ScorerHeads,
    Standardise,
    ZeroShotHead,
    train_scorers,
)

CONFIG = ScorerConfig(epochs=25, hidden=16, lr=1e-2)
WIDTH = 6


def make_data(count: int = 240, seed: int = 0) -> ScorerData:
    """Scene k pushes feature k, object k feature 3 + k; scenes 0, 1 mean emotions 1, 6 at 3 : 1."""
    generator = torch.Generator().manual_seed(seed)
    scene, object_ = (torch.randint(n, (count,), generator=generator) for n in (2, 3))
    flip = torch.rand(count, generator=generator) < 0.25
    emotion = torch.where((scene == 0) ^ flip, 1, 6)
    features = 0.2 * torch.randn(count, WIDTH, generator=generator)
    features[torch.arange(count), scene] += 3
    features[torch.arange(count), 3 + object_] += 3
    return ScorerData(100 * features + 7, emotion, F.one_hot(scene, 2), F.one_hot(object_, 3))


BANKS = {
    "scenes": NameBank(("beach", "street"), F.pad(torch.eye(2), (0, 4))),
    "objects": NameBank(("toy", "lion", "boat"), torch.roll(F.pad(torch.eye(3), (0, 3)), 3, dims=1)),
}


def train(data: ScorerData, seed: int = 0, validation: ScorerData | None = None) -> ScorerHeads:
    return train_scorers(data, **BANKS, config=CONFIG, logit_scale=20.0, seed=seed, validation=validation)


@pytest.fixture(scope="module")
def heads() -> ScorerHeads:
    return train(make_data(), validation=make_data(80, seed=9))


@torch.no_grad()
def accuracy(logits: Tensor, labels: Tensor) -> float:
    return float((logits.argmax(dim=1) == labels).float().mean())


def test_names_are_learnt(heads: ScorerHeads) -> None:
    data = make_data(seed=1)
    assert accuracy(heads.scene(data.features), data.scene.argmax(dim=1)) > 0.98
    assert accuracy(heads.object(data.features), data.object.argmax(dim=1)) > 0.98


def test_emotion_probabilities_are_calibrated_not_only_right(heads: ScorerHeads) -> None:
    """Eq. 5 averages them, so 3 : 1 must come out as about 0.75."""
    data = make_data(2000, seed=2)
    with torch.no_grad():
        probabilities = heads.emotion(data.features).softmax(dim=1)
    at_beach = probabilities[data.scene[:, 0] == 1].mean(dim=0)
    assert at_beach[1] == pytest.approx(0.75, abs=0.07)
    assert at_beach[6] == pytest.approx(0.25, abs=0.07)


def test_training_is_a_function_of_its_arguments() -> None:
    torch.manual_seed(123)
    state_before = torch.get_rng_state()
    a = train(make_data(60))
    assert torch.equal(torch.get_rng_state(), state_before)
    torch.manual_seed(456)
    b, c = train(make_data(60)), train(make_data(60), seed=1)
    assert all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )
    assert not torch.equal(a.emotion.fc0.weight, c.emotion.fc0.weight)


def test_validation_keeps_the_best_epoch() -> None:
    """Held-out labels say the opposite: the least trained epoch is the best one."""
    data = make_data()
    liar = make_data()._replace(emotion=torch.where(data.emotion == 1, 6, 1))

    def held_loss(heads: ScorerHeads) -> float:
        with torch.no_grad():
            return float(F.cross_entropy(heads.emotion(liar.features), liar.emotion))

    assert held_loss(train(data, validation=liar)) < held_loss(train(data)) - 0.05


def test_images_without_an_attribute_are_left_out() -> None:
    data = make_data()
    noise = ScorerData(
        torch.full((500, WIDTH), 1e4),
        torch.ones(500, dtype=torch.int64),
        torch.zeros(500, 2),
        torch.zeros(500, 3),
    )
    joined = ScorerData(*(torch.cat(pair) for pair in zip(data, noise, strict=True)))
    with_noise, without = train(joined), train(data)
    assert torch.equal(with_noise.scene.standardise.mean, without.scene.standardise.mean)
    assert accuracy(with_noise.scene(data.features), data.scene.argmax(dim=1)) > 0.98


def test_several_objects_share_the_target() -> None:
    data = make_data(1000)
    both = data._replace(object=torch.tensor([[1, 1, 0]]).expand(1000, -1))
    heads = train(both)
    with torch.no_grad():
        mean = heads.object(both.features).softmax(dim=1).mean(dim=0)
    assert mean.tolist() == pytest.approx([0.5, 0.5, 0.0], abs=0.05)


def test_no_attributes_mean_zero_shot() -> None:
    data = make_data(60)._replace(scene=torch.zeros(60, 2), object=torch.zeros(60, 3))
    heads = train(data)
    assert isinstance(heads.scene, ZeroShotHead)
    assert isinstance(heads.object, ZeroShotHead)
    logits = heads.object(torch.tensor([[0.0, 0, 0, 3, 4, 0]]))
    torch.testing.assert_close(logits, 20 * torch.tensor([[0.6, 0.8, 0.0]]))


def test_no_names_mean_no_head() -> None:
    nothing = NameBank((), torch.empty(0, WIDTH))
    data = make_data(30)._replace(scene=torch.zeros(30, 0))
    heads = train_scorers(data, scenes=nothing, objects=BANKS["objects"], config=CONFIG, logit_scale=1.0)
    assert heads.scene is None
    assert isinstance(heads.object, LinearHead)


def test_an_empty_split_is_an_error() -> None:
    with pytest.raises(ValueError, match="training split is empty"):
        train(make_data(0))


def test_standardise_is_an_affine_map_of_known_result() -> None:
    layer = Standardise(2)
    layer.fit(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    torch.testing.assert_close(layer(torch.tensor([[4.0, 5.0]])), torch.tensor([[2.0, 0.0]]))


@pytest.mark.parametrize("kind", ["linear", "zero_shot", "none"])
def test_saved_heads_answer_alike(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    scene = {
        "linear": LinearHead(WIDTH, 2),
        "zero_shot": ZeroShotHead(torch.randn(2, WIDTH), 7.0),
        "none": None,
    }[kind]
    names = () if scene is None else ("beach", "street")
    heads = ScorerHeads(
        EmotionClassifier(WIDTH, 5),
        scene=scene,
        object=LinearHead(WIDTH, 1),
        scene_names=names,
        object_names=("toy",),
    )
    heads.save(tmp_path / "scorers.safetensors")
    again = ScorerHeads.load(tmp_path / "scorers.safetensors")
    x = torch.randn(4, WIDTH)
    assert again.names == heads.names
    assert not again.training
    assert torch.equal(again.emotion(x), heads.emotion(x))
    assert torch.equal(again.object(x), heads.object(x))
    if scene is not None:
        assert torch.equal(again.scene(x), scene(x))
    assert heads.save_bytes() == again.save_bytes()


def test_another_file_is_refused_by_name(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors holds scorers of version None, expected 1"):
        ScorerHeads.load(tmp_path / "other.safetensors")


def test_a_classifier_of_other_labels_is_trained_and_comes_back(tmp_path: Path) -> None:
    data = make_data()
    two = data._replace(emotion=(data.emotion == 1).long())
    heads = train_scorers(two, **BANKS, config=CONFIG, logit_scale=20.0, labels=SENTIMENT.labels)
    heads.save(tmp_path / "heads")
    loaded = ScorerHeads.load(tmp_path / "heads")
    assert loaded.labels == SENTIMENT.labels
    assert loaded.emotion(data.features).shape == (240, 2)
    assert torch.equal(loaded.emotion(data.features), heads.emotion(data.features))
