"""Stable Diffusion XL: two text encoders, a pooled output, size conditions."""

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from torch.nn import functional as F

from tests.models.tiny import XL_POOLED, XL_WIDTHS, make_net, pictures, write_xl_pipeline
from uniemo_ray.config import PLACEHOLDER
from uniemo_ray.models.conditioning import TextStates, denoiser_inputs
from uniemo_ray.models.diffusion import load_diffusion

WIDTH = sum(XL_WIDTHS)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("is_empty_zero", [True, False])
def test_plain_text_states_equal_the_pipelines(is_empty_zero, tmp_path):
    folder = write_xl_pipeline(tmp_path, is_empty_zero=is_empty_zero)
    parts, pipeline = load_diffusion(str(folder)), StableDiffusionXLPipeline.from_pretrained(folder)
    hidden, empty, pooled, empty_pooled = pipeline.encode_prompt(["a lion in a forest", "toy"])
    states = parts.text_states(["a lion in a forest", "toy"])
    assert torch.equal(states.hidden, hidden)
    assert torch.equal(states.pooled, pooled)
    assert torch.equal(parts.empty_states(2).hidden, empty)
    assert torch.equal(parts.empty_states(2).pooled, empty_pooled)
    assert bool(empty.any()) != is_empty_zero


def test_condition_that_is_a_word_equals_the_word(xl):
    rows = xl.embed_words(["lion", "skull"])
    assert rows.shape == (2, WIDTH)
    states = xl.text_states([f"{PLACEHOLDER} room", f"a {PLACEHOLDER}"], rows)
    plain = xl.text_states(["lion room", "a skull"])
    assert torch.equal(states.hidden, plain.hidden)
    assert torch.equal(states.pooled, plain.pooled)
    assert states.hidden.shape == (2, 16, WIDTH)
    assert states.pooled.shape == (2, XL_POOLED)


@pytest.mark.parametrize("part", [0, 1])
def test_each_encoder_hears_its_own_part_of_the_condition(xl, part):
    (row,) = xl.embed_words(["lion"])
    other = row.clone()
    other.split(XL_WIDTHS)[part].add_(1.0)
    before, after = (xl.text_states([PLACEHOLDER], c[None]) for c in (row, other))
    mine, others = (s.hidden.split(XL_WIDTHS, dim=-1) for s in (before, after))
    assert not torch.equal(mine[part], others[part])
    assert torch.equal(mine[1 - part], others[1 - part])
    assert torch.equal(before.pooled, after.pooled) == (part == 0)


def test_the_denoiser_is_told_text_and_size(xl):
    text = xl.text_states(["lion", "toy"])
    inputs = denoiser_inputs(text, height=24, width=40)
    assert torch.equal(inputs["encoder_hidden_states"], text.hidden)
    assert torch.equal(inputs["added_cond_kwargs"]["text_embeds"], text.pooled)
    assert inputs["added_cond_kwargs"]["time_ids"].tolist() == [[24.0, 40.0, 0.0, 0.0, 24.0, 40.0]] * 2
    assert denoiser_inputs(TextStates(text.hidden), height=24, width=40).keys() == {"encoder_hidden_states"}


def test_loss_is_the_error_of_the_true_noise(xl):
    latents, text = torch.randn(2, 4, 8, 6), xl.text_states(["lion", "toy"])
    source = generator()
    t = torch.randint(1000, (2,), generator=source)
    noise = torch.randn(latents.shape, generator=source)
    kept = xl.schedule.alphas_cumprod[t][:, None, None, None]
    sizes = torch.tensor([[16.0, 12.0, 0.0, 0.0, 16.0, 12.0]] * 2)  # two pixels a latent
    predicted = xl.denoiser(
        kept.sqrt() * latents + (1 - kept).sqrt() * noise,
        t,
        text.hidden,
        added_cond_kwargs={"text_embeds": text.pooled, "time_ids": sizes},
    ).sample
    expected = torch.stack([F.mse_loss(p, n) for p, n in zip(predicted, noise, strict=True)])
    torch.testing.assert_close(xl.denoise_loss(latents, text, generator()), expected)


def test_gradient_at_the_condition_matches_finite_differences(xl_folder):
    parts = load_diffusion(str(xl_folder))
    for part in (parts.vae, parts.denoiser, parts.text_encoder, parts.text_encoder_2):
        part.double()
    source = generator(4)
    latents, noise = (torch.randn(2, 4, 8, 8, dtype=torch.float64, generator=source) for _ in range(2))
    condition = torch.randn(2, WIDTH, dtype=torch.float64, generator=source)
    noisy = parts.schedule.add_noise(latents, noise, torch.tensor([200, 700]))

    def value(c):
        text = parts.text_states([PLACEHOLDER, f"{PLACEHOLDER} room"], c)
        inputs = denoiser_inputs(text, height=16, width=16)
        return (parts.denoiser(noisy, torch.tensor([200, 700]), **inputs).sample - noise).pow(2).mean()

    (gradient,) = torch.autograd.grad(value(condition.requires_grad_()), condition)
    for sample, column in [(0, 2), (1, 9), (0, XL_WIDTHS[0] + 1), (1, WIDTH - 1)]:
        step = torch.zeros_like(condition)
        step[sample, column] = 1e-5
        with torch.no_grad():
            slope = (value(condition + step) - value(condition - step)) / 2e-5
        assert gradient[sample, column].item() == pytest.approx(slope.item(), rel=1e-4)
        assert abs(slope) > 1e-10


def test_implicit_feedback_reaches_the_queries(xl, clip):
    net = make_net(
        clip, text_width=xl.text_widths, words=xl.embed_words(["lion", "skull", "beach", "forest"])
    )
    net.scenes.set_coefficients({name: [0.5] * 8 for name in net.scenes.names})
    net.objects.set_coefficients({name: [0.5] * 8 for name in net.objects.names})
    condition = net.condition(net.understand(pictures()).features, torch.tensor([1, 6]))
    states = xl.text_states([PLACEHOLDER] * 2, condition.vector)
    xl.denoise_loss(torch.randn(2, 4, 8, 8), states, generator()).mean().backward()
    for parameter in (net.encoder.scene_queries, net.encoder.object_queries):
        assert parameter.grad.abs().max() > 1e-8
    assert all(p.grad is None for p in xl.text_encoder_2.parameters())


def test_long_prompts_are_named_for_either_tokenizer(xl):
    xl.check_prompt(PLACEHOLDER)
    with pytest.raises(ValueError, match="too long"):
        xl.check_prompt("lion " * 20 + PLACEHOLDER)
