import shutil

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch.nn import functional as F

from tests.models.tiny import TEXT_WIDTH, make_net, pictures, write_pipeline
from uniemo_ray.config import PLACEHOLDER
from uniemo_ray.models.diffusion import load_diffusion, unfreeze_denoiser


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(shape, seed=0):
    """Time steps and noise as `denoise_loss` draws them."""
    source = generator(seed)
    t = torch.randint(1000, (shape[0],), generator=source)
    return t, torch.randn(shape, generator=source)


@pytest.mark.parametrize("target", ["epsilon", "v_prediction", "sample"])
def test_loss_is_the_error_of_the_true_target(target, tmp_path):
    parts = load_diffusion(str(write_pipeline(tmp_path, target=target)))
    latents, states = torch.randn(3, 4, 8, 8), parts.text_states(["lion", "", "toy"])
    t, noise = draws(latents.shape)
    kept = parts.schedule.alphas_cumprod[t][:, None, None, None]
    noisy = kept.sqrt() * latents + (1 - kept).sqrt() * noise
    wanted = {"epsilon": noise, "sample": latents}.get(
        target, kept.sqrt() * noise - (1 - kept).sqrt() * latents
    )
    predicted = parts.denoiser(noisy, t, states.hidden).sample
    expected = torch.stack([F.mse_loss(p, w) for p, w in zip(predicted, wanted, strict=True)])
    torch.testing.assert_close(parts.denoise_loss(latents, states, generator()), expected)


def test_loss_is_a_function_of_its_generator(diffusion):
    latents, states = torch.randn(2, 4, 8, 8), diffusion.text_states(["lion", "toy"])
    first = diffusion.denoise_loss(latents, states, generator(1))
    assert torch.equal(first, diffusion.denoise_loss(latents, states, generator(1)))
    assert not torch.equal(first, diffusion.denoise_loss(latents, states, generator(2)))


def test_latents_are_shifted_and_scaled_as_the_vae_says(diffusion):
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    raw = diffusion.vae.encode(pixels).latent_dist
    latents = diffusion.encode_images(pixels)
    torch.testing.assert_close(latents, (raw.mean - 0.3) * 0.7)
    assert torch.equal(latents, diffusion.encode_images(pixels))
    torch.testing.assert_close(diffusion.decode_latents(latents), diffusion.vae.decode(raw.mean).sample)


def test_plain_text_states_equal_the_pipelines(diffusion, pipeline_folder):
    pipeline = StableDiffusionPipeline.from_pretrained(pipeline_folder)
    expected, empty = pipeline.encode_prompt(["a lion in a forest"], "cpu", 1, True)
    assert torch.equal(diffusion.text_states(["a lion in a forest"]).hidden, expected)
    assert torch.equal(diffusion.empty_states(1).hidden, empty)


def test_condition_that_is_a_word_equals_the_word(diffusion):
    (row,) = diffusion.embed_words(["lion"])
    states = diffusion.text_states([f"{PLACEHOLDER} room"], row[None])
    assert torch.equal(states.hidden, diffusion.text_states(["lion room"]).hidden)
    assert states.pooled is None


def test_words_of_a_name_are_averaged(diffusion):
    ids = diffusion.tokenizer("amusement park", add_special_tokens=False).input_ids
    assert len(ids) == 2
    rows = diffusion.embed_words(["amusement_park", "lion"])
    torch.testing.assert_close(rows[0], diffusion.word_embeddings[ids].mean(dim=0))
    assert rows.shape == (2, TEXT_WIDTH)
    assert diffusion.word_embeddings.shape == (len(diffusion.tokenizer), TEXT_WIDTH)
    with pytest.raises(ValueError, match="one word or more"):
        diffusion.embed_words([""])


def test_implicit_feedback_reaches_the_queries(diffusion, clip):
    net = make_net(clip, words=diffusion.embed_words(["lion", "skull", "beach", "forest"])).train()
    net.scenes.set_coefficients({name: [0.5] * 8 for name in net.scenes.names})
    net.objects.set_coefficients({name: [0.5] * 8 for name in net.objects.names})
    condition = net.condition(net.understand(pictures()).features, torch.tensor([1, 6]))
    states = diffusion.text_states([PLACEHOLDER] * 2, condition.vector)
    diffusion.denoise_loss(torch.randn(2, 4, 8, 8), states, generator()).mean().backward()

    encoder = net.encoder
    for parameter in (encoder.scene_queries, encoder.object_queries, encoder.scene_beta, encoder.object_beta):
        assert parameter.grad.abs().max() > 1e-8
    assert encoder.visual.conv1.weight.grad.abs().max() > 1e-8
    assert all(p.grad is None for p in diffusion.denoiser.parameters())
    assert all(p.grad is None for p in diffusion.text_encoder.parameters())
    assert all(p.grad is None for p in net.classifier.parameters())


def test_gradient_at_the_condition_matches_finite_differences(pipeline_folder):
    parts = load_diffusion(str(pipeline_folder))
    for part in (parts.vae, parts.denoiser, parts.text_encoder):
        part.double()
    latents = torch.randn(2, 4, 8, 8, dtype=torch.float64, generator=generator(4))
    condition = torch.randn(2, TEXT_WIDTH, dtype=torch.float64, generator=generator(5))
    # the loss itself ends in fp32; the exact error is taken from the denoiser
    t, noise = draws(latents.shape)
    noisy = parts.schedule.add_noise(latents, noise.double(), t)

    def value(c):
        states = parts.text_states([PLACEHOLDER] * 2, c)
        return (parts.denoiser(noisy, t, states.hidden).sample - noise).pow(2).mean()

    (gradient,) = torch.autograd.grad(value(condition.requires_grad_()), condition)
    for sample, column in [(0, 2), (1, 9)]:
        step = torch.zeros_like(condition)
        step[sample, column] = 1e-5
        with torch.no_grad():
            slope = (value(condition + step) - value(condition - step)) / 2e-5
        assert gradient[sample, column].item() == pytest.approx(slope.item(), rel=1e-4)
        assert abs(slope) > 1e-10


def test_lora_trains_adapters_only_and_starts_as_identity(pipeline_folder):
    parts = load_diffusion(str(pipeline_folder))
    latents, states = torch.randn(1, 4, 8, 8), parts.text_states(["lion"])
    before = parts.denoise_loss(latents, states, generator())
    trained = unfreeze_denoiser(parts, mode="lora", lora_rank=2)
    after = parts.denoise_loss(latents, states, generator())
    torch.testing.assert_close(after, before)
    names = [name for name, p in parts.denoiser.named_parameters() if p.requires_grad]
    assert names
    assert all("lora_" in name for name in names)
    assert len(trained) == len(names)
    assert min(min(p.shape) for p in trained) == 2
    after.mean().backward()
    assert any(p.grad is not None and p.grad.any() for p in trained)


def test_frozen_and_full_denoiser(pipeline_folder):
    parts = load_diffusion(str(pipeline_folder))
    assert unfreeze_denoiser(parts, mode="frozen") == []
    assert len(unfreeze_denoiser(parts, mode="full")) == len(list(parts.denoiser.parameters()))
    assert not any(p.requires_grad for p in parts.text_encoder.parameters())


def test_missing_conditions_are_named(diffusion):
    with pytest.raises(ValueError, match="there is no condition"):
        diffusion.text_states([PLACEHOLDER])
    with pytest.raises(ValueError, match="got 1 for 2 prompts"):
        diffusion.text_states([PLACEHOLDER] * 2, torch.zeros(1, TEXT_WIDTH))


def test_unknown_targets_are_refused(pipeline_folder, tmp_path):
    folder = tmp_path / "flow"
    shutil.copytree(pipeline_folder, folder)
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text().replace("v_prediction", "flow_prediction"))
    with pytest.raises(ValueError, match="'flow_prediction'"):
        load_diffusion(str(folder))
