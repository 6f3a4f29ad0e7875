"""Textual Inversion and soft prompts against a text encoder whose table really has new rows."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.baselines.generation.reference import denoising_errors
from uniemo_ray.baselines.generation.batches import LatentBatches, first_of_each
from uniemo_ray.baselines.generation.inversion import (
    TokenObjective,
    build_soft_prompt,
    build_textual_inversion,
)
from uniemo_ray.baselines.generation.stage import BaselineStage
from uniemo_ray.baselines.generation.tokens import (
    ConditionPainter,
    LabelTokens,
    LearntWords,
    written,
)
from uniemo_ray.emotions import MIKELS
from uniemo_ray.inference.painter import Painter
from uniemo_ray.inference.requests import Painting, Request, SamplingSettings, Share
from uniemo_ray.models.diffusion import DiffusionParts
from uniemo_ray.settings_file import load_config
from uniemo_ray.training.batches import encode_latent

LABELS, VECTORS, WIDTH = 3, 2, 16
TEMPLATES = ("a photo of {}", "{} in a forest")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_new_rows(encoder: Any, tokenizer: Any, rows: Tensor) -> tuple[Any, Any]:
    """The published form: the vocabulary grows by real tokens, `<L-K>` for vector K of label L."""
    encoder, tokenizer = copy.deepcopy(encoder), copy.deepcopy(tokenizer)
    labels, vectors, width = rows.shape
    names = [f"<{label}-{number}>" for label in range(labels) for number in range(vectors)]
    assert tokenizer.add_tokens(names) == len(names)
    encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    table = encoder.get_input_embeddings().weight
    ids = tokenizer.convert_tokens_to_ids(names)
    table.data[ids] = rows.reshape(-1, width)
    table.requires_grad_(True)
    return encoder, tokenizer


def ids_of(tokenizer: Any, template: str, label: int, vectors: int) -> list[int]:
    """Start, the words with the label's new tokens in their place, end, padding."""
    before, after = template.split("{}")
    new = tokenizer.convert_tokens_to_ids([f"<{label}-{number}>" for number in range(vectors)])
    plain = [tokenizer(text, add_special_tokens=False).input_ids if text else [] for text in (before, after)]
    ids = [tokenizer.bos_token_id, *plain[0], *new, *plain[1], tokenizer.eos_token_id]
    return ids + [tokenizer.pad_token_id] * (tokenizer.model_max_length - len(ids))


def test_one_step_of_textual_inversion_equals_its_definition(diffusion: DiffusionParts) -> None:
    rows = random(LABELS, VECTORS, WIDTH, seed=1)
    tokens = LabelTokens(rows)
    objective = TokenObjective(tokens, diffusion, [written(template, VECTORS) for template in TEMPLATES])
    batch = {
        "latents": random(4, 4, 8, 8, seed=2),
        "emotion": torch.tensor([0, 2, 2, 0]),
        "template": torch.tensor([0, 1, 0, 1]),
    }
    torch.manual_seed(5)
    found = objective(batch)["loss"]
    found.backward()

    encoder, tokenizer = with_new_rows(diffusion.text_encoder, diffusion.tokenizer, rows)
    ids = [
        ids_of(tokenizer, TEMPLATES[template], label, VECTORS)
        for label, template in zip(batch["emotion"].tolist(), batch["template"].tolist(), strict=True)
    ]
    hidden = encoder(torch.tensor(ids)).last_hidden_state
    expected = denoising_errors(diffusion, batch["latents"], hidden, seed=5).mean()
    expected.backward()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)

    new = encoder.get_input_embeddings().weight.grad[-LABELS * VECTORS :].reshape(LABELS, VECTORS, WIDTH)
    assert tokens.vectors.grad is not None
    torch.testing.assert_close(tokens.vectors.grad, new, atol=1e-5, rtol=1e-5)
    assert (new[[0, 2]].abs().sum(dim=2) > 0).all()
    assert tokens.vectors.grad[1].abs().sum() == 0  # no image of label 1
    assert [name for name, _ in objective.named_parameters()] == ["tokens.vectors"]
    frozen = [*diffusion.text_encoder.parameters(), *diffusion.denoiser.parameters()]
    assert all(parameter.grad is None for parameter in frozen)


def test_both_text_encoders_of_sdxl_hear_the_new_words(xl: DiffusionParts) -> None:
    rows = random(2, VECTORS, xl.text_width, seed=3)
    label = torch.tensor([1, 0])
    states = xl.text_states([written("a photo of {}", VECTORS)] * 2, rows[label])
    hidden, pooled = [], None
    parts = (xl.text_encoder, xl.tokenizer), (xl.text_encoder_2, xl.tokenizer_2)
    for (encoder, tokenizer), own in zip(parts, rows.split(xl.text_widths, dim=-1), strict=True):
        encoder, tokenizer = with_new_rows(encoder, tokenizer, own)
        ids = torch.tensor([ids_of(tokenizer, "a photo of {}", each, VECTORS) for each in (1, 0)])
        # their configs say that the end is the highest id, which the new tokens now are
        getattr(encoder, "text_model", encoder).eos_token_id = tokenizer.eos_token_id
        said = encoder(ids, output_hidden_states=True)
        hidden.append(said.hidden_states[-2])
        pooled = getattr(said, "text_embeds", None)
    torch.testing.assert_close(states.hidden, torch.cat(hidden, dim=-1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(states.pooled, pooled, atol=1e-5, rtol=1e-5)


def test_words_that_are_learnt_words_paint_what_the_words_paint(diffusion: DiffusionParts) -> None:
    lion, skull = diffusion.embed_words(["lion", "skull"])
    learnt = LearntWords(
        ("calm", "tense"), torch.stack([torch.stack([lion, skull]), torch.stack([skull] * 2)])
    )
    settings = SamplingSettings("unipc", 2, 4.0, 16, 16, 2)
    shares = [(Share(label, 1.0),) for label in ("calm", "tense", "bored")]
    requests = [Request(7, written("a {}", 2), share) for share in shares]
    words, others, refused = ConditionPainter(diffusion, learnt).paint(requests, settings, threads=1)
    (plain,) = Painter(diffusion).paint([Request(7, "a lion skull", ())], settings, threads=1)
    assert isinstance(words, Painting)
    assert isinstance(others, Painting)
    assert isinstance(plain, Painting)
    np.testing.assert_array_equal(words.pixels, plain.pixels)
    assert (others.pixels != plain.pixels).any()
    assert "no word was learnt for 'bored', only for calm, tense" in refused.reason


def stage(baseline: Any, *overrides: str) -> BaselineStage:
    return BaselineStage(config=load_config(None, list(overrides)), baseline=baseline)


def test_new_words_start_at_the_initializer(diffusion: DiffusionParts) -> None:
    section = "generation_baselines.textual_inversion"
    settings = stage("textual_inversion", f"{section}.vectors=2", f"{section}.initializers={{fear: skull}}")
    parts = build_textual_inversion(settings, diffusion, "cpu")
    vectors = parts.objective.tokens.vectors
    assert vectors.shape == (8, 2, WIDTH)
    expected = diffusion.embed_words(["amusement", "skull"])
    torch.testing.assert_close(vectors[[0, 6], 1], expected)
    assert torch.equal(vectors[:, 0], vectors[:, 1])
    assert [(group["name"], group["lr"], group["weight_decay"]) for group in parts.groups] == [
        ("tokens", 2e-3, 1e-2)
    ]
    assert parts.exports["net"].state_dict().keys() == {"vectors"}


def test_soft_prompts_start_at_words_that_the_seed_draws(diffusion: DiffusionParts) -> None:
    vectors = [
        build_soft_prompt(stage("soft_prompt", f"seed={seed}"), diffusion, "cpu").objective.tokens.vectors
        for seed in (0, 0, 1)
    ]
    assert vectors[0].shape == (8, 8, WIDTH)
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.equal(vectors[0], vectors[2])
    is_word = (vectors[0].flatten(0, 1)[:, None] == diffusion.word_embeddings).all(dim=2)  # (C n, V)
    assert is_word.any(dim=1).all()


def raw(*labels: str) -> dict[str, np.ndarray]:
    ids = [f"image-{number}" for number in range(len(labels))]
    latents = [encode_latent(random(4, 8, 8, seed=number)) for number in range(len(labels))]
    columns = {"image_id": ids, "emotion": list(labels), "latent": latents}
    return {name: np.array(values, dtype=object) for name, values in columns.items()}


def test_a_row_draws_its_template_by_seed_epoch_and_id() -> None:
    batches = LatentBatches(space=MIKELS, seed=0, templates=3)
    rows = raw(*["awe", "fear"] * 6)
    first, again, later = (batches(rows, epoch=epoch, is_training=True).tensors for epoch in (0, 0, 1))
    assert first["emotion"].tolist() == [1, 6] * 6
    assert first["latents"].shape == (12, 4, 8, 8)
    assert torch.equal(first["template"], again["template"])
    assert not torch.equal(first["template"], later["template"])
    assert set(first["template"].tolist()) == {0, 1, 2}
    alone = batches({name: column[3:4] for name, column in rows.items()}, epoch=0, is_training=True)
    assert alone.tensors["template"].item() == first["template"][3].item()
    with pytest.raises(ValueError, match="unknown mikels label 'joy'"):
        batches(raw("joy"), epoch=0, is_training=True)


def test_few_images_of_each_label_lie_among_more() -> None:
    ids, labels = [f"i{number}" for number in range(30)], ["a", "b", "c"] * 10
    counts = np.ones(30, dtype=bool)
    counts[:6] = False
    two, four = (first_of_each(ids, labels, counts, most=most, seed=1) for most in (2, 4))
    assert [sum(two[start::3]) for start in range(3)] == [2, 2, 2]
    assert [sum(four[start::3]) for start in range(3)] == [4, 4, 4]
    assert not (two & ~four).any()
    assert not (four & ~counts).any()
    assert (two != first_of_each(ids, labels, counts, most=2, seed=2)).any()
