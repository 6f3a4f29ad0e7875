"""CoOp and CoCoOp against their published definitions: logits, the loss of a step and its gradient."""

import pytest
import torch
from torch.nn import functional as F

from tests.baselines.understanding.reference import cosine_logits, mean_cross_entropy, prompt_feature
from tests.models.tiny import JOINT, pictures, write_clip
from uniemo_ray.baselines.understanding.build import ClassificationObjective
from uniemo_ray.baselines.understanding.prompt_learning import (
    CoCoOp,
    ConditionalContext,
    Context,
    CoOp,
    PromptFrame,
    first_context,
    place_context,
)
from uniemo_ray.models.clip import ClipParts

LABELS = ("awe", "amusement_park", "joy")  # of one, two and more tokens
NAMES = ("awe", "amusement park", "joy")
TRUTH = [2, 0, 1, 1]
WIDTH = 8
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> ClipParts:
    return write_clip(tmp_path_factory.mktemp("clip"))


def drawn(*shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def step(network: torch.nn.Module, clip: ClipParts, pixels: torch.Tensor) -> torch.Tensor:
    objective = ClassificationObjective(network, clip.preprocess())
    return objective({"pixels": pixels, "emotion": torch.tensor(TRUTH)})["loss"]


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("is_class_specific", [False, True])
@pytest.mark.parametrize("length", [1, 3, 4])
def test_coop_is_as_published(clip, position, is_class_specific, length):
    start = drawn(*((len(LABELS),) if is_class_specific else ()), length, WIDTH)
    frame = PromptFrame(clip, LABELS, context_length=length, position=position)
    network = CoOp(clip, frame, Context(start.clone()))
    pixels = pictures(4)
    own = start.clone().requires_grad_()
    contexts = own if is_class_specific else [own] * len(LABELS)
    texts = [
        prompt_feature(clip, name, context, position) for name, context in zip(NAMES, contexts, strict=True)
    ]
    with torch.no_grad():
        images = clip.model.encode_image(pixels)
    expected = torch.stack([cosine_logits(clip, image, texts) for image in images])
    torch.testing.assert_close(network(pixels), expected, **CLOSE)
    loss, reference = step(network, clip, pixels), mean_cross_entropy(expected, TRUTH)
    torch.testing.assert_close(loss, reference, **CLOSE)
    loss.backward()
    reference.backward()
    torch.testing.assert_close(network.learner.vectors.grad, own.grad, **CLOSE)
    trained = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    assert trained == ["learner.vectors"]


def test_cocoop_is_as_published(clip):
    start, hidden = drawn(4, WIDTH), JOINT // 4
    learner = ConditionalContext(start.clone(), feature_width=JOINT, reduction=4)
    network = CoCoOp(clip, PromptFrame(clip, LABELS, context_length=4), learner)
    own = {
        "vectors": start.clone(),
        "meta_net.0.weight": drawn(hidden, JOINT, seed=4),
        "meta_net.0.bias": drawn(hidden, seed=5),
        "meta_net.2.weight": drawn(WIDTH, hidden, seed=6),
        "meta_net.2.bias": drawn(WIDTH, seed=7),
    }
    learner.load_state_dict(own)
    for value in own.values():
        value.requires_grad_()
    pixels = pictures(4)
    with torch.no_grad():
        images = clip.model.encode_image(pixels)
    rows = []
    for image in images:
        direction = image / image.norm()
        inner = torch.relu(own["meta_net.0.weight"] @ direction + own["meta_net.0.bias"])
        shift = own["meta_net.2.weight"] @ inner + own["meta_net.2.bias"]
        context = torch.stack([vector + shift for vector in own["vectors"]])
        rows.append(
            cosine_logits(clip, image, [prompt_feature(clip, name, context, "end") for name in NAMES])
        )
    expected = torch.stack(rows)
    torch.testing.assert_close(network(pixels), expected, **CLOSE)
    loss, reference = step(network, clip, pixels), mean_cross_entropy(expected, TRUTH)
    torch.testing.assert_close(loss, reference, **CLOSE)
    loss.backward()
    reference.backward()
    for name, parameter in learner.named_parameters():
        torch.testing.assert_close(parameter.grad, own[name].grad, **CLOSE)
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert trained == {f"learner.{name}" for name in own}


def test_the_meta_net_has_a_sixteenth_of_the_features_width():
    layers = ConditionalContext(drawn(4, WIDTH), feature_width=128).meta_net
    assert [tuple(layer.weight.shape) for layer in layers if hasattr(layer, "weight")] == [(8, 128), (8, 8)]
    assert isinstance(layers[1], torch.nn.ReLU)
    assert len(layers) == 3


@pytest.mark.parametrize(
    ("position", "order"),
    [
        ("end", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("middle", [0, 1, 4, 5, 2, 3, 6, 7]),
        ("front", [0, 4, 5, 1, 2, 3, 6, 7]),
    ],
)
def test_places_of_three_vectors_and_a_name_of_two_tokens(position, order):
    assert place_context(3, 2, total=8, position=position) == order


def test_a_context_starts_from_words_or_close_to_nothing(clip):
    words = first_context(clip, length=4, words="a photo of a")
    ids = clip.tokenizer.encode("a photo of a")
    torch.testing.assert_close(words, clip.model.token_embedding.weight[ids], rtol=0, atol=0)
    assert words.data_ptr() != clip.model.token_embedding.weight.data_ptr()
    torch.manual_seed(0)
    assert float(first_context(clip, length=500, words=None).std()) == pytest.approx(0.02, rel=0.05)
    assert first_context(clip, length=2, words=None, classes=3).shape == (3, 2, WIDTH)
    with pytest.raises(ValueError, match="'a photo' has 2 tokens, expected 4"):
        first_context(clip, length=4, words="a photo")


def test_starting_words_give_the_prompt_of_these_words(clip):
    """A context that is not trained yet is the handwritten prompt."""
    frame = PromptFrame(clip, LABELS, context_length=4)
    network = CoOp(clip, frame, Context(first_context(clip, length=4, words="a photo of a")))
    ids = clip.tokenizer([f"a photo of a {name}." for name in NAMES])
    with torch.no_grad():
        texts = clip.model.encode_text(ids, normalize=True)
        images = F.normalize(clip.model.encode_image(pictures(3)), dim=1)
        expected = clip.model.logit_scale.exp() * images @ texts.T
        torch.testing.assert_close(network(pictures(3)), expected, **CLOSE)
