import pytest
import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tests.models.tiny import TEXT_WIDTH, text_config
from uniemo_ray.config import PLACEHOLDER
from uniemo_ray.models.conditioning import PromptCache, Prompts, encode_prompts, tokenize


@pytest.fixture
def tokenizer(pipeline_folder):
    return CLIPTokenizer.from_pretrained(pipeline_folder / "tokenizer")


def encoder_of(kind, tokenizer):
    torch.manual_seed(0)
    return kind(text_config(len(tokenizer))).eval().requires_grad_(False)


def word(encoder, tokenizer, text):
    (index,) = tokenizer(text, add_special_tokens=False).input_ids
    return encoder.get_input_embeddings().weight[index].clone()


@pytest.mark.parametrize("kind", [CLIPTextModel, CLIPTextModelWithProjection])
@pytest.mark.parametrize("form", ["{}", "{} in a forest", "a {} and a {}"])
def test_condition_that_is_a_word_equals_the_plain_encoder(kind, form, tokenizer):
    encoder = encoder_of(kind, tokenizer)
    plain = [form.replace("{}", "lion"), form.replace("{}", "skull")]
    prompts = tokenize(tokenizer, [form.replace("{}", PLACEHOLDER)] * 2)
    condition = torch.stack([word(encoder, tokenizer, "lion"), word(encoder, tokenizer, "skull")])

    got = encode_prompts(encoder, prompts, condition, output_hidden_states=True)
    ids = tokenizer(plain, padding="max_length", return_tensors="pt").input_ids
    expected = encoder(ids, output_hidden_states=True)

    assert torch.equal(got.last_hidden_state, expected.last_hidden_state)
    assert all(torch.equal(a, b) for a, b in zip(got.hidden_states, expected.hidden_states, strict=True))
    pooled = "text_embeds" if kind is CLIPTextModelWithProjection else "pooler_output"
    assert torch.equal(getattr(got, pooled), getattr(expected, pooled))
    assert not torch.equal(got.last_hidden_state[0], got.last_hidden_state[1])


def test_ids_equal_the_tokenizer_without_placeholder(tokenizer):
    texts = ["a lion in a forest", "", "street"]
    prompts = tokenize(tokenizer, texts)
    expected = tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
    assert torch.equal(prompts.ids, expected)
    assert not prompts.is_placeholder.any()


def test_table_and_hooks_are_left_as_they_were(tokenizer):
    encoder = encoder_of(CLIPTextModel, tokenizer)
    table = encoder.get_input_embeddings().weight.clone()
    prompts = tokenize(tokenizer, [PLACEHOLDER] * 2)
    before = encoder(prompts.ids).last_hidden_state
    with pytest.raises(RuntimeError):
        encode_prompts(encoder, prompts, torch.randn(3, TEXT_WIDTH))  # 3 conditions for 2 prompts
    encode_prompts(encoder, prompts, torch.randn(2, TEXT_WIDTH))
    assert torch.equal(encoder.get_input_embeddings().weight, table)
    assert torch.equal(encoder(prompts.ids).last_hidden_state, before)


def test_each_prompt_has_its_own_condition(tokenizer):
    encoder = encoder_of(CLIPTextModel, tokenizer)
    conditions = torch.randn(3, TEXT_WIDTH, generator=torch.Generator().manual_seed(1))
    batch = encode_prompts(encoder, tokenize(tokenizer, [f"{PLACEHOLDER} room"] * 3), conditions)
    one = tokenize(tokenizer, [f"{PLACEHOLDER} room"])
    for i in range(3):
        alone = encode_prompts(encoder, one, conditions[i : i + 1]).last_hidden_state[0]
        torch.testing.assert_close(batch.last_hidden_state[i], alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", [CLIPTextModel, CLIPTextModelWithProjection])
def test_gradient_at_the_condition_matches_finite_differences(kind, tokenizer):
    encoder = encoder_of(kind, tokenizer).double()
    prompts = tokenize(tokenizer, [PLACEHOLDER, f"a {PLACEHOLDER} in a {PLACEHOLDER}"])
    condition = torch.randn(2, TEXT_WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def value(c):
        return encode_prompts(encoder, prompts, c).last_hidden_state.pow(3).sum()

    (gradient,) = torch.autograd.grad(value(condition.requires_grad_()), condition)
    eps = 1e-6
    for sample, column in [(0, 0), (0, 7), (1, 3), (1, 15)]:
        step = torch.zeros_like(condition)
        step[sample, column] = eps
        with torch.no_grad():
            slope = (value(condition + step) - value(condition - step)) / (2 * eps)
        assert gradient[sample, column].item() == pytest.approx(slope.item(), rel=1e-6)
        assert abs(slope) > 1e-6


def test_placeholder_beyond_the_end_is_refused(tokenizer):
    fits = " ".join(["lion"] * 13) + f" {PLACEHOLDER}"
    assert tokenize(tokenizer, [fits]).is_placeholder[0, 14]
    with pytest.raises(ValueError, match="too long"):
        tokenize(tokenizer, [f"lion {fits}"])


def test_long_prompts_are_cut_with_their_end_token(tokenizer):
    prompts = tokenize(tokenizer, [PLACEHOLDER + " lion" * 30])
    assert prompts.ids.shape == (1, 16)
    assert prompts.ids[0, -1] == tokenizer.eos_token_id
    assert prompts.is_placeholder[0].nonzero().tolist() == [[1]]


def test_condition_of_another_width_is_refused(tokenizer):
    encoder = encoder_of(CLIPTextModel, tokenizer)
    with pytest.raises(ValueError, match=f"width {TEXT_WIDTH}"):
        encode_prompts(encoder, tokenize(tokenizer, [PLACEHOLDER]), torch.randn(1, TEXT_WIDTH + 1))


def test_prompts_are_tokenised_once_for_the_last_batches(
    tokenizer: CLIPTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def counted(tokenizer: CLIPTokenizer, texts: list[str]) -> Prompts:
        seen.append(texts)
        return tokenize(tokenizer, texts)

    monkeypatch.setattr("uniemo_ray.models.conditioning.tokenize", counted)
    cache, device = PromptCache(size=2), torch.device("cpu")
    first = cache.tokens(tokenizer, ["a <emotion> dog"] * 2, device)
    assert cache.tokens(tokenizer, ["a <emotion> dog"] * 2, device) is first
    assert torch.equal(first.ids, tokenize(tokenizer, ["a <emotion> dog"] * 2).ids)
    for text in ("b", "c", "a <emotion> dog"):
        cache.tokens(tokenizer, [text] * 2, device)
    assert [texts[0] for texts in seen] == ["a <emotion> dog", "b", "c", "a <emotion> dog"]


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (f"a {PLACEHOLDER}{PLACEHOLDER} in a forest", "a lion skull in a forest"),
        (f"{PLACEHOLDER} and a {PLACEHOLDER}", "lion and a skull"),
        (f"{PLACEHOLDER * 4}", "lion skull lion skull"),
        (f"{PLACEHOLDER}", "lion"),
    ],
)
def test_several_vectors_stand_at_one_placeholder_after_the_other(prompt, words, tokenizer):
    encoder = encoder_of(CLIPTextModel, tokenizer)
    condition = torch.stack([word(encoder, tokenizer, "lion"), word(encoder, tokenizer, "skull")])
    both = torch.stack([condition, condition.flip(0)])  # each prompt has its own
    got = encode_prompts(encoder, tokenize(tokenizer, [prompt] * 2), both).last_hidden_state
    swapped = words.replace("lion", "x").replace("skull", "lion").replace("x", "skull")
    ids = tokenizer([words, swapped], padding="max_length", return_tensors="pt").input_ids
    assert torch.equal(got, encoder(ids).last_hidden_state)
