"""The sampler against diffusers' own pipeline, and what each guided image depends on."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UniPCMultistepScheduler
from torch import Tensor

from uniemo_ray.inference.requests import SamplingSettings
from uniemo_ray.inference.sampler import (
    Guided,
    check_settings,
    draw_latents,
    make_scheduler,
    sample,
    to_pictures,
)
from uniemo_ray.models.conditioning import TextStates

SETTINGS = SamplingSettings(scheduler="unipc", steps=5, guidance=4.0, width=32, height=32, micro_batch=3)
PROMPTS = ["a toy in a street", "a lion in a forest", "boat, beach"]


def encode(pipe: StableDiffusionPipeline, prompts: list[str]) -> Tensor:
    ids = pipe.tokenizer(
        prompts, padding="max_length", max_length=pipe.tokenizer.model_max_length, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        return pipe.text_encoder(ids)[0]


def guided(pipe: StableDiffusionPipeline, *prompts: list[str]) -> Guided:
    states = torch.stack([encode(pipe, p) for p in prompts])
    empty = TextStates(encode(pipe, [""] * states.shape[1]))
    return Guided(TextStates(states), torch.ones(states.shape[:2]), empty)


def generators(seeds: list[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def run(pipe: StableDiffusionPipeline, texts: Guided, settings: SamplingSettings, seeds: list[int]) -> Tensor:
    own = generators(seeds)
    noise = draw_latents(own, (4, settings.height // 4, settings.width // 4), device=torch.device("cpu"))
    scheduler = make_scheduler(pipe.scheduler.config, settings.scheduler)
    return sample(pipe.unet, scheduler, noise, texts, settings=settings, generators=own)


@pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning")
@pytest.mark.parametrize("guidance", [4.0, 1.0, 7.3])
@pytest.mark.parametrize("scheduler", [UniPCMultistepScheduler, DDIMScheduler])
@pytest.mark.parametrize("size", [(32, 32), (48, 32)])
def test_equals_the_pipeline_pixel_for_pixel(pipeline, guidance, scheduler, size) -> None:
    name = "unipc" if scheduler is UniPCMultistepScheduler else "ddim"
    settings = SETTINGS._replace(guidance=guidance, scheduler=name, width=size[0], height=size[1])
    raw = {**pipeline.scheduler.config, "steps_offset": 0, "clip_sample": True}  # as an old file has it
    own = generators([1, 2, 3])
    noise = draw_latents(own, (4, size[1] // 4, size[0] // 4), device=torch.device("cpu"))
    latents = sample(
        pipeline.unet,
        make_scheduler(raw, name),
        noise,
        guided(pipeline, PROMPTS),
        settings=settings,
        generators=own,
    )
    reference = StableDiffusionPipeline(**{**pipeline.components, "scheduler": scheduler.from_config(raw)})
    reference.set_progress_bar_config(disable=True)
    # the pipeline corrects the old file's entries in its own scheduler; ours must do the same
    reference.scheduler = scheduler.from_config(reference.scheduler.config)
    expected = reference(
        PROMPTS,
        num_inference_steps=settings.steps,
        guidance_scale=guidance,
        width=size[0],
        height=size[1],
        generator=generators([1, 2, 3]),
        output_type="pil",
    ).images
    with torch.no_grad():
        pixels = to_pictures(pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample)
    assert pixels.shape == (3, size[1], size[0], 3)
    assert pixels.std() > 5
    for mine, theirs in zip(pixels, expected, strict=True):
        np.testing.assert_array_equal(mine, np.asarray(theirs))


def test_prompt_and_seed_matter(pipeline) -> None:
    base = run(pipeline, guided(pipeline, PROMPTS), SETTINGS, [1, 2, 3])
    other_prompt = run(pipeline, guided(pipeline, ["spider", *PROMPTS[1:]]), SETTINGS, [1, 2, 3])
    other_seed = run(pipeline, guided(pipeline, PROMPTS), SETTINGS, [1, 9, 3])
    assert not torch.equal(base[0], other_prompt[0])
    assert torch.equal(base[1:], other_prompt[1:])
    assert not torch.equal(base[1], other_seed[1])
    assert torch.equal(base[[0, 2]], other_seed[[0, 2]])


def test_position_in_the_batch_does_not_matter(pipeline) -> None:
    base = run(pipeline, guided(pipeline, PROMPTS), SETTINGS, [1, 2, 3])
    turned = run(pipeline, guided(pipeline, PROMPTS[::-1]), SETTINGS, [3, 2, 1])
    assert torch.equal(base, turned.flip(0))


def test_two_guidance_terms_follow_the_formula(pipeline) -> None:
    """One step: eps = e0 + sum w_k g (e_k - e0), fed to the same scheduler."""
    settings = SETTINGS._replace(steps=1, scheduler="ddim")
    texts = guided(pipeline, PROMPTS, ["spider", "skull", "house"])
    texts = texts._replace(weights=torch.tensor([[0.25, 1.0, 0.5], [0.75, 0.0, 0.5]]))
    got = run(pipeline, texts, settings, [1, 2, 3])
    noise = draw_latents(generators([1, 2, 3]), (4, 8, 8), device=torch.device("cpu"))
    scheduler = make_scheduler(pipeline.scheduler.config, "ddim")
    scheduler.set_timesteps(1)
    t = scheduler.timesteps[0]
    with torch.no_grad():
        e0, e1, e2 = (pipeline.unet(noise, t, s).sample for s in (texts.empty.hidden, *texts.states.hidden))
    w1, w2 = texts.weights[:, :, None, None, None]
    expected = scheduler.step(e0 + 4 * w1 * (e1 - e0) + 4 * w2 * (e2 - e0), t, noise).prev_sample
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_no_guidance_mixes_the_conditions_alone(pipeline) -> None:
    texts = guided(pipeline, PROMPTS, PROMPTS)._replace(weights=torch.full((2, 3), 0.5))
    single = run(pipeline, guided(pipeline, PROMPTS), SETTINGS._replace(guidance=1.0), [1, 2, 3])
    double = run(pipeline, texts, SETTINGS._replace(guidance=1.0), [1, 2, 3])
    torch.testing.assert_close(single, double, atol=1e-5, rtol=1e-5)


def test_a_noisy_scheduler_draws_per_image(pipeline) -> None:
    """DDIM with eta draws noise in every step: it must come from each image's own generator."""

    class NoisyDDIM(DDIMScheduler):
        def step(self, model_output, timestep, sample, generator=None, return_dict=True):  # type: ignore[override]
            return super().step(
                model_output, timestep, sample, eta=1.0, generator=generator, return_dict=return_dict
            )

    def noisy(prompts: list[str], seeds: list[int]) -> Tensor:
        own = generators(seeds)
        noise = draw_latents(own, (4, 8, 8), device=torch.device("cpu"))
        scheduler = NoisyDDIM.from_config(pipeline.scheduler.config)
        return sample(
            pipeline.unet, scheduler, noise, guided(pipeline, prompts), settings=SETTINGS, generators=own
        )

    base = noisy(PROMPTS, [1, 2, 3])
    assert torch.equal(base[1], noisy([PROMPTS[1], "spider", "skull"], [2, 8, 9])[0])
    assert not torch.equal(
        base, run(pipeline, guided(pipeline, PROMPTS), SETTINGS._replace(scheduler="ddim"), [1, 2, 3])
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 65}, "width must be a positive multiple of 8 px, got 65: try 64"),
        ({"height": 0}, "height must be a positive multiple of 8"),
        ({"scheduler": "euler"}, "unknown scheduler 'euler': expected one of unipc, ddim"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"guidance": float("nan")}, "guidance must be a finite number"),
        ({"guidance": -1.0}, "guidance must be a finite number of at least 0, got -1.0"),
        ({"micro_batch": 0}, "micro_batch must be at least 1"),
    ],
)
def test_impossible_settings_are_named(change, words) -> None:
    with pytest.raises(ValueError, match=words):
        check_settings(SETTINGS._replace(**change), multiple=8)
    check_settings(SETTINGS, multiple=8)
