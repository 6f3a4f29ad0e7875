"""The tiny world's tokenizer, as the diffusion model's folder holds it."""

import pytest
from transformers import CLIPTokenizer

from tools.tiny.words import write_tokenizers


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    write_tokenizers(clip_dir=folder / "clip", pipeline_tokenizer_dir=folder / "pipeline")
    return CLIPTokenizer.from_pretrained(folder / "pipeline")
