"""Likelihoods of names by vision-language models against plain sums over tokens."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BertConfig

from tests.baselines.understanding import tiny_language_models as tiny
from uniemo_ray.baselines.understanding.language_models import NameLikelihood, load_language_model
from uniemo_ray.config import Config

LABELS = ("awe", "amusement_park", "joy")
NAMES = ("awe", "amusement park", "joy")
QUESTION = "question : which emotion does this picture evoke ? answer :"
CASES = {
    "blip2": (partial(tiny.write_blip2, text="opt"), QUESTION),
    "blip2-t5": (partial(tiny.write_blip2, text="t5"), QUESTION),
    "instructblip": (tiny.write_instructblip, QUESTION),
    "llava": (tiny.write_llava, f"user : <image> {QUESTION}"),
}


def pictures(count: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (20 + i, 24, 3), dtype=np.uint8) for i in range(count)]


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    write, prompt = CASES[request.param]
    return (*load_language_model(str(write(tmp_path_factory.mktemp(request.param)))), prompt)


@torch.no_grad()
def by_hand(model, processor, prompt: str, picture: np.ndarray, name: str) -> list[float]:
    """Log-probability of each token of a name: the model is asked for one token after another."""
    inputs = processor(images=Image.fromarray(picture), text=prompt, return_tensors="pt")
    ids = processor.tokenizer(name, add_special_tokens=False).input_ids
    found = []
    if model.config.get_text_config().is_encoder_decoder:
        said = [model.config.get_text_config().decoder_start_token_id]
        for token in [*ids, processor.tokenizer.eos_token_id]:
            logits = model(**inputs, decoder_input_ids=torch.tensor([said])).logits[0, -1]
            found.append(float(torch.log(torch.softmax(logits, 0)[token])))
            said.append(token)
        return found
    for token in ids:
        logits = model(**inputs).logits[0, -1]
        found.append(float(torch.log(torch.softmax(logits, 0)[token])))
        inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([[token]])], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return found


def test_a_name_is_as_likely_as_its_tokens_one_after_another(case):
    model, processor, prompt = case
    found = NameLikelihood(model, processor, prompt=prompt, labels=LABELS)(pictures())
    assert found.shape == (3, 3)
    for row, picture in zip(found, pictures(), strict=True):
        tokens = [by_hand(model, processor, prompt, picture, name) for name in NAMES]
        np.testing.assert_allclose(row, [sum(values) for values in tokens], atol=1e-5)
    assert float(found.std(dim=0).min()) > 1e-4  # the picture counts


def test_the_mean_favours_no_short_name(case):
    model, processor, prompt = case
    found = NameLikelihood(model, processor, prompt=prompt, labels=LABELS, score="mean")(pictures(1))
    tokens = [by_hand(model, processor, prompt, pictures(1)[0], name) for name in NAMES]
    np.testing.assert_allclose(found[0], [np.mean(values) for values in tokens], atol=1e-5)


def test_what_is_no_vision_language_model_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"model '.*none' cannot be loaded") as caught:
        load_language_model(str(tmp_path / "none"))
    assert "\n" not in str(caught.value)
    tiny.write_blip2(tmp_path / "bert")
    BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="is of type 'bert', which takes no image"):
        load_language_model(str(tmp_path / "bert"))


def test_llavas_prompt_says_where_the_image_stands():
    with pytest.raises(ValueError, match="expected one <image>"):
        Config.model_validate({"baselines": {"llava": {"prompt": "which emotion?"}}})
