"""The tiny vocabulary: whole words, and the same ids from both tokenizers."""

import numpy as np
import pytest
from open_clip.tokenizer import SimpleTokenizer
from transformers import CLIPTokenizer

from tools.tiny.words import (
    CONTEXT_LENGTH,
    apply_merges,
    bpe_merges,
    caption,
    vocabulary_words,
    write_tokenizers,
)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    size = write_tokenizers(clip_dir=folder / "clip", pipeline_tokenizer_dir=folder / "pipeline")
    ours = SimpleTokenizer(bpe_path=str(folder / "clip" / "merges.txt.gz"), context_length=CONTEXT_LENGTH)
    return ours, CLIPTokenizer.from_pretrained(folder / "pipeline"), size


def test_every_word_is_one_token():
    merges = bpe_merges(vocabulary_words())
    assert all(apply_merges(word, merges) == [word + "</w>"] for word in vocabulary_words())


@pytest.mark.parametrize(
    "text", ["a christmas tree in a mountain snowy", "lion, park", "", "an image of awe", "zebra"]
)
def test_both_tokenizers_agree(tokenizers, text):
    ours, theirs, _ = tokenizers
    ids = theirs(text).input_ids
    assert ours([text])[0, : len(ids)].tolist() == ids


def test_vocabulary_sizes_agree(tokenizers):
    ours, theirs, size = tokenizers
    assert ours.vocab_size == len(theirs) == size


def test_captions_cover_every_prompt_form():
    rng = np.random.default_rng(0)
    both = {caption(rng, scene="sky", object_="lion") for _ in range(200)}
    assert {"a lion in a sky", "lion, sky", "lion sky", "sky lion"} <= both
    bare = {caption(rng, scene="boxing_ring", object_=None) for _ in range(100)}
    assert {"boxing ring", "an image of a boxing ring"} <= bare
