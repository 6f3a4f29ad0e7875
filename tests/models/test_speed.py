"""Each setting of speed takes effect, and keeps the numbers."""

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from tests.models.tiny import TEXT_WIDTH, make_net, pictures
from uniemo_ray.config import PLACEHOLDER, DiffusionConfig, TrainConfig
from uniemo_ray.models.diffusion import DiffusionParts, load_diffusion, unfreeze_denoiser
from uniemo_ray.models.speed import compile_parts, tune_diffusion, tune_training

LATENTS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
CONDITION = torch.randn(2, TEXT_WIDTH, generator=torch.Generator().manual_seed(2))


def loss_and_gradient(parts: DiffusionParts) -> tuple[torch.Tensor, torch.Tensor]:
    condition = CONDITION.clone().requires_grad_()
    states = parts.text_states([PLACEHOLDER] * 2, condition)
    loss = parts.denoise_loss(LATENTS, states, torch.Generator().manual_seed(3))
    loss.mean().backward()
    return loss.detach(), condition.grad


@pytest.fixture
def parts(pipeline_folder) -> DiffusionParts:
    return load_diffusion(str(pipeline_folder))


def test_channels_last_is_another_layout_and_the_same_numbers(parts, diffusion):
    tune_diffusion(parts, DiffusionConfig(channels_last=True))
    for module in (parts.denoiser, parts.vae):
        weights = [p for p in module.parameters() if p.ndim == 4 and min(p.shape[1:]) > 1]
        assert weights
        assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)
    for mine, theirs in zip(loss_and_gradient(parts), loss_and_gradient(diffusion), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"), [("bf16", torch.bfloat16, 0.05), ("fp16", torch.half, 0.01)]
)
def test_half_frozen_parts_take_half_and_nearly_agree(parts, diffusion, name, dtype, tolerance):
    tune_diffusion(parts, DiffusionConfig(frozen_dtype=name))
    assert {p.dtype for m in (parts.denoiser, parts.text_encoder) for p in m.parameters()} == {dtype}
    assert {p.dtype for p in parts.vae.parameters()} == {torch.float32}
    loss, gradient = loss_and_gradient(parts)
    expected, slope = loss_and_gradient(diffusion)
    assert loss.dtype == gradient.dtype == torch.float32
    torch.testing.assert_close(loss, expected, atol=0, rtol=tolerance)
    assert F.cosine_similarity(gradient, slope).min() > 0.98
    assert not torch.equal(loss, expected)


def test_a_denoiser_that_trains_stays_fp32():
    with pytest.raises(ValidationError, match="needs a frozen denoiser, got 'lora'"):
        DiffusionConfig(denoiser="lora", frozen_dtype="bf16")


def test_vae_slicing_runs_one_image_at_a_time(parts, diffusion):
    tune_diffusion(parts, DiffusionConfig(vae_slicing=True))
    sizes: list[int] = []
    for module in (parts.vae.encoder, parts.vae.decoder):
        module.register_forward_pre_hook(lambda _m, inputs: sizes.append(len(inputs[0])))
    pixels = torch.rand(3, 3, 16, 16) * 2 - 1
    latents = parts.encode_images(pixels)
    torch.testing.assert_close(latents, diffusion.encode_images(pixels), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        parts.decode_latents(latents), diffusion.decode_latents(latents), atol=1e-5, rtol=1e-5
    )
    assert sizes == [1] * 6


@pytest.mark.parametrize("mode", ["frozen", "lora"])
def test_checkpointing_computes_again_and_gives_the_same_gradients(clip, pipeline_folder, mode):
    results, calls = [], []
    for is_on in (False, True):
        net, parts = make_net(clip).train(), load_diffusion(str(pipeline_folder))
        torch.manual_seed(0)
        unfreeze_denoiser(parts, mode=mode, lora_rank=2)
        tune_training(net, parts.denoiser, TrainConfig(gradient_checkpointing=is_on))
        count = [0]
        # in the first layer of a block: computing again ends as soon as nothing is missing
        watched = [
            net.encoder.visual.transformer.resblocks[1].ln_1,
            parts.denoiser.up_blocks[-1].resnets[0].norm1,
        ]
        for module in watched:
            module.register_forward_pre_hook(lambda *_, count=count: count.__setitem__(0, count[0] + 1))
        torch.manual_seed(4)
        condition = net.condition(net.understand(pictures()).features, torch.tensor([0, 1])).vector
        states = parts.text_states([PLACEHOLDER] * 2, condition)
        loss = parts.denoise_loss(LATENTS, states, torch.Generator().manual_seed(3)).mean()
        loss.backward()
        trained = [*net.parameters(), *parts.denoiser.parameters()]
        results.append([loss.detach(), *(p.grad for p in trained if p.grad is not None)])
        calls.append(count[0])
    assert calls == [2, 4]
    assert len(results[0]) == len(results[1])
    for plain, again in zip(*results, strict=True):
        assert torch.equal(plain, again)


def test_compiled_parts_keep_names_and_numbers(clip, monkeypatch):
    from torch import _dynamo

    monkeypatch.delenv("TORCHDYNAMO_DISABLE", raising=False)  # set by another test's engine
    graphs: list[object] = []

    def backend(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    net = make_net(clip)
    expected, before = net.understand(pictures()).logits, set(net.state_dict())
    with _dynamo.config.patch(disable=False):
        compile_parts(net.encoder.visual.transformer.resblocks, backend=backend)
        found = net.understand(pictures()).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert set(net.state_dict()) == before
    assert graphs


def test_the_compile_setting_reaches_tower_and_denoiser(clip, parts, monkeypatch):
    monkeypatch.delenv("TORCHDYNAMO_DISABLE", raising=False)
    net = make_net(clip)
    tune_training(net, parts.denoiser, TrainConfig())
    modules = [*net.encoder.visual.transformer.resblocks, parts.denoiser]
    assert all(module._compiled_call_impl is None for module in modules)
    tune_training(net, parts.denoiser, TrainConfig(compile=True))
    assert all(module._compiled_call_impl is not None for module in modules)
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    with pytest.raises(ValueError, match="TORCHDYNAMO_DISABLE=1"):
        compile_parts(modules)


class Counting(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts attention kernels, and soft maxima as attention by hand would need them."""

    def __init__(self):
        super().__init__()
        self.fused = self.by_hand = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name = str(function)
        self.fused += "scaled_dot_product" in name
        self.by_hand += "_softmax.default" in name
        return function(*arguments, **(options or {}))


def test_every_attention_is_torchs_fused_one(clip, diffusion):
    net = make_net(clip).train()
    with Counting() as tower:
        net.understand(pictures())
    layers = len(net.encoder.visual.transformer.resblocks)
    assert (tower.fused, tower.by_hand) == (layers + 2, 0)  # and the two interactive blocks
    with Counting() as text, torch.no_grad():
        states = diffusion.text_states(["lion", "toy"])
    assert (text.fused, text.by_hand) == (2, 0)
    attentions = [m for m in diffusion.denoiser.modules() if type(m).__name__ == "Attention"]
    with Counting() as denoiser, torch.no_grad():
        diffusion.denoiser(LATENTS, torch.zeros(2, dtype=torch.long), states.hidden)
    assert attentions
    assert (denoiser.fused, denoiser.by_hand) == (len(attentions), 0)


def test_the_attention_of_a_vae_is_the_fused_one():
    vae = AutoencoderKL(
        block_out_channels=(32,), latent_channels=4
    )  # Stable Diffusion's have it, the tiny one not
    with Counting() as counted, torch.no_grad():
        vae.decode(vae.encode(torch.rand(1, 3, 16, 16)).latent_dist.mode())
    assert (counted.fused, counted.by_hand) == (2, 0)


def test_frozen_parts_get_no_gradient(clip, parts):
    net = make_net(clip)
    condition = net.condition(net.understand(pictures()).features, torch.tensor([0, 1])).vector
    states = parts.text_states([PLACEHOLDER] * 2, condition)
    parts.denoise_loss(LATENTS, states, torch.Generator().manual_seed(3)).mean().backward()
    frozen: list[nn.Module] = [parts.vae, parts.denoiser, parts.text_encoder]
    assert all(p.grad is None for module in frozen for p in module.parameters())
