"""Words that no caption has taught: which they are, and that only they learn."""

import numpy as np
import pytest
import torch

from tools.tiny.diffusion import TextToImage, make_denoiser, make_text_encoder
from tools.tiny.renders import draw_renders
from tools.tiny.vague_words import VagueCaptions, train_vague_words, vague_caption, vague_words
from tools.tiny.words import caption
from uniemo_ray.emotions import EMOTIONS


def test_vague_words_are_those_that_captions_never_hold():
    words = vague_words()
    assert set(EMOTIONS) - set(words) == {"amusement"}  # taught by the amusement park
    rng = np.random.default_rng(0)
    spoken = " ".join(caption(rng, scene="coffee_shop", object_="sky") for _ in range(200))
    assert not set(words) & set(spoken.replace(",", " ").split())


def test_a_vague_caption_holds_its_word_and_at_most_one_name():
    rng = np.random.default_rng(0)
    texts = {vague_caption(rng, word="awe", scene="boxing_ring", object_="lion") for _ in range(300)}
    assert all("awe" in text.split() for text in texts)
    assert {"an image of awe", "awe boxing ring", "lion awe"} <= texts
    bare = {vague_caption(rng, word="awe", scene=None, object_="lion") for _ in range(300)}
    assert not any("boxing" in text for text in bare)


@pytest.mark.slow
def test_only_the_vague_words_learn(tokenizer):
    torch.manual_seed(0)
    parts = TextToImage(make_text_encoder(len(tokenizer)), make_denoiser())
    before = {name: value.clone() for name, value in parts.text_encoder.state_dict().items()}
    denoiser = {name: value.clone() for name, value in parts.denoiser.state_dict().items()}
    renders = draw_renders(range(8), seed=0, size_px=32)
    train_vague_words(parts, renders, torch.randn(8, 8, 16, 16), tokenizer, steps=12, batch_size=4)
    name = "embeddings.token_embedding.weight"
    changed = (parts.text_encoder.state_dict()[name] != before.pop(name)).any(dim=1).nonzero().flatten()
    ids = VagueCaptions(tokenizer, parts.text_encoder, seed=0).ids
    assert set(changed.tolist()) <= set(ids.tolist())
    assert len(changed) > len(ids) / 2
    assert all(torch.equal(parts.text_encoder.state_dict()[key], value) for key, value in before.items())
    assert all(torch.equal(parts.denoiser.state_dict()[key], value) for key, value in denoiser.items())
