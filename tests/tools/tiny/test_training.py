"""The tiny trainers on toy sizes: losses fall, weights and schedules do what they say."""

import json
from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from tools.tiny import build
from tools.tiny.diffusion import CaptionEncoder, make_text_encoder, object_weights, train_diffusion
from tools.tiny.renders import draw_renders
from tools.tiny.schedule import WeightAverage, warmup_cosine
from tools.tiny.vae import encode, make_vae, reconstruction_psnr, train_decoder
from uniemo_ray.metrics.recogniser import Recogniser, recognise


def test_warmup_then_cosine():
    rates = [warmup_cosine(s, steps=1000, warmup=100) for s in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[100] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.02, abs=1e-4)
    assert all(a >= b for a, b in pairwise(rates[100:]))


def test_weight_average_reaches_constant_weights():
    module = nn.Linear(2, 1)
    average = WeightAverage(module, decay=0.9)
    nn.init.constant_(module.weight, 5.0)
    for step in range(200):
        average.update(module, step=step)
    copy = nn.Linear(2, 1)
    average.copy_to(copy)
    torch.testing.assert_close(copy.weight, torch.full((1, 2), 5.0), atol=1e-3, rtol=0)


def test_object_weights_have_mean_one_and_favour_the_box():
    weights = object_weights(np.array([[0.5, 0.5, 0.5], [0, 0, 0]], dtype=np.float32), side=8, extra=2.0)
    torch.testing.assert_close(weights.mean(dim=(1, 2, 3)), torch.ones(2))
    assert weights[0, 0, 4, 4] == pytest.approx(3 * weights[0, 0, 0, 0].item())
    assert weights[1].std() == 0


def test_caption_states_carry_a_gradient_to_the_words(tokenizer):
    encoder = make_text_encoder(len(tokenizer))
    states = CaptionEncoder(tokenizer, encoder, seed=0)(np.array([0, 1, 2, -1]), np.array([3, -1, 5, 6]))
    assert states.shape == (4, 16, 128)
    states[..., 0].sum().backward()  # the sum over all is the same for every word, as the last norm centres
    assert encoder.get_input_embeddings().weight.grad.abs().sum() > 0


@pytest.mark.slow
def test_the_decoder_learns_and_the_encoder_stays():
    pixels = draw_renders(range(8), seed=0, size_px=32).pixels
    torch.manual_seed(0)
    vae = make_vae().eval()
    encoder = {name: p.clone() for name, p in vae.encoder.named_parameters()}
    before, latents = reconstruction_psnr(vae, pixels), encode(vae, pixels)
    train_decoder(vae, pixels, latents, steps=40, batch_size=8)
    assert reconstruction_psnr(vae, pixels) > before + 3
    assert all(torch.equal(p, encoder[name]) for name, p in vae.encoder.named_parameters())


@pytest.mark.slow
def test_diffusion_resumes_from_its_checkpoint(tokenizer, tmp_path):
    renders = draw_renders(range(8), seed=0, size_px=32)
    latents = torch.randn(8, 8, 16, 16)
    path = tmp_path / "state"
    options = {"batch_size": 4, "checkpoint": path, "save_every": 1}
    train_diffusion(renders, latents, tokenizer, steps=2, **options)
    assert torch.load(path, weights_only=True)["step"] == 2
    train_diffusion(renders, latents, tokenizer, steps=3, **options)
    assert torch.load(path, weights_only=True)["step"] == 3


def test_recognise_names_the_likeliest():
    model = Recogniser(scenes=3, objects=4).eval()
    nn.init.zeros_(model.scene_head.weight)
    model.scene_head.bias.data = torch.tensor([0.0, 9.0, 0.0])
    seen = recognise(model, torch.zeros(2, 3, 32, 32))
    assert seen.scene.tolist() == [1, 1]
    assert seen.scene_probability[0] > 0.99


@pytest.mark.slow
def test_build_end_to_end_on_toy_sizes(tmp_path):
    steps = {field.name: 2 for field in fields(build.BuildConfig) if field.name.endswith("_steps")}
    config = build.BuildConfig(**steps)
    draw_renders(range(80), seed=0).save(tmp_path / "train.npz")
    draw_renders(range(90, 122), seed=0, bare_share=0).save(tmp_path / "held.npz")
    build.build_tokenizers(tmp_path)
    for stage in (build.build_recogniser, build.build_clip, build.build_vae):
        stage(tmp_path, config)
    build.build_latents(tmp_path)
    build.build_decoder(tmp_path, config)
    build.build_diffusion(tmp_path, config)
    build.build_vague_words(tmp_path, config)
    card = build.pack(tmp_path, tmp_path / "out", config, prompts=8)
    assert card["bytes"] < 20e6
    assert set(card["quality"]) == set(json.loads((tmp_path / "out" / "card.json").read_text())["quality"])
    assert 0 <= card["quality"]["clip_zero_shot_object_accuracy"] <= 1
