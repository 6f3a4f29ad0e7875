"""Zero-shot by an ensemble of prompts, and how classifiers on features are stored."""

import numpy as np
import pytest
import torch

from tests.baselines.understanding.reference import text_feature
from tests.models.tiny import write_clip
from uniemo_ray.baselines.understanding.features import FeatureClassifier, ensemble, zero_shot
from uniemo_ray.baselines.understanding.prompts import EmbeddedTextTower, PromptTokens
from uniemo_ray.models.clip import ClipParts, load_clip

LABELS = ("awe", "fear", "a_street")
PROMPTS = ("{}", "a photo of {}.", "an image of a {}")


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> ClipParts:
    return write_clip(tmp_path_factory.mktemp("clip"))


@torch.no_grad()
def test_the_ensemble_is_the_mean_of_directions_scaled_to_length_one_again(clip):
    found = ensemble(clip, LABELS, PROMPTS)
    for row, label in zip(found, LABELS, strict=True):
        directions = []
        for prompt in PROMPTS:
            feature = text_feature(clip, prompt.replace("{}", label.replace("_", " ")))
            directions.append(feature / feature.norm())
        mean = torch.stack(directions).mean(dim=0)
        torch.testing.assert_close(row, mean / mean.norm(), atol=1e-5, rtol=0)


@torch.no_grad()
def test_zero_shot_is_cosine_over_temperature(clip):
    features = torch.randn(5, 12, generator=torch.Generator().manual_seed(0)) * 7
    logits = zero_shot(clip, LABELS, PROMPTS)(features)
    directions = ensemble(clip, LABELS, PROMPTS)
    scale = float(clip.model.logit_scale.exp())
    for i, feature in enumerate(features):
        for j, direction in enumerate(directions):
            cosine = float(feature @ direction / feature.norm() / direction.norm())
            assert float(logits[i, j]) == pytest.approx(scale * cosine, abs=1e-5)


@torch.no_grad()
def test_embedded_prompts_give_the_features_of_their_words(clip):
    ids = clip.tokenizer(["a photo of awe.", "fear"])
    embedded = clip.model.token_embedding(ids)
    found = EmbeddedTextTower(clip.model)(embedded, ids.argmax(dim=1))
    for row, text in zip(found, ["a photo of awe.", "fear"], strict=True):
        torch.testing.assert_close(row, text_feature(clip, text), atol=1e-5, rtol=0)


@pytest.mark.parametrize("is_normalised", [True, False])
def test_a_stored_classifier_answers_as_before(is_normalised):
    generator = torch.Generator().manual_seed(1)
    weight, bias, features = (torch.randn(*s, generator=generator) for s in ((3, 4), (3,), (6, 4)))
    own = FeatureClassifier(weight, bias, is_normalised=is_normalised)
    seen = features / features.norm(dim=1, keepdim=True) if is_normalised else features
    again = FeatureClassifier.from_bytes(own.to_bytes())
    assert torch.equal(again(features), own(features))
    np.testing.assert_allclose(again(features), seen @ weight.T + bias, atol=1e-6)


def test_what_a_text_tower_reads_is_known_without_its_weights(clip, tmp_path):
    tokens = PromptTokens.of_clip("tiny", pretrained=None)
    shipped = load_clip("tiny")
    assert tokens.length == shipped.model.context_length
    text = "an image of awe"
    assert torch.equal(tokens.tokenizer([text]), shipped.tokenizer([text]))
    assert tokens.count(text) == 4


def test_a_prompt_that_would_be_cut_is_refused():
    tokens = PromptTokens.of_clip("tiny", pretrained=None)
    fits = "a " * 13 + "awe"
    tokens.check_prompt(fits, setting="x")
    with pytest.raises(ValueError, match=r"^x: .* has 17 tokens with start and end, .* reads 16: shorten it"):
        tokens.check_prompt(f"a {fits}", setting="x")


def test_a_context_leaves_room_for_the_longest_class():
    tokens = PromptTokens.of_clip("tiny", pretrained=None)
    labels = ("awe", "positive")  # of 1 and 7 tokens
    tokens.check_context(6, labels, setting="x")
    with pytest.raises(ValueError, match=r"x is 7, .* reads 16 tokens and 'positive' leaves room for 6"):
        tokens.check_context(7, labels, setting="x")
    with pytest.raises(ValueError, match="'a photo of a' has 4 tokens, but context_length is 5"):
        tokens.check_start("a photo of a", 5, setting="x")
