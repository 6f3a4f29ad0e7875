"""Requests to pixels: what an image depends on, and what it does not."""

from functools import partial

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UniPCMultistepScheduler,
)

from tests.inference.conftest import CONFIG, OBJECTS, SCENES
from tests.models.tiny import write_pipeline, write_xl_pipeline
from uniemo_ray.inference.model_folder import ModelParts, load_model_folder, save_model_folder
from uniemo_ray.inference.painter import STOPPED, Painter, with_attributes
from uniemo_ray.inference.requests import (
    Attributes,
    Failure,
    Painting,
    Request,
    SamplingSettings,
    Share,
    Step,
)
from uniemo_ray.models.build import build_net
from uniemo_ray.models.diffusion import load_diffusion

SETTINGS = SamplingSettings(scheduler="unipc", steps=3, guidance=4.0, width=32, height=32, micro_batch=4)
AWE, FEAR = (Share("awe", 1.0),), (Share("fear", 1.0),)
REQUESTS = [
    Request(11, "<emotion>", AWE),
    Request(12, "<emotion> room", FEAR),
    Request(13, "a lion in a forest", ()),
    Request(14, "<emotion>", (Share("awe", 0.25), Share("fear", 0.75))),
    Request(15, "<emotion>", (Share("awe", 0.25), Share("fear", 0.75)), "guidance"),
    Request(16, "<emotion>", AWE),
]


@pytest.fixture(scope="module")
def painter(parts: ModelParts) -> Painter:
    return Painter(parts.diffusion, net=parts.net, space=parts.space)


def pixels(
    painter: Painter, requests: list[Request], settings: SamplingSettings = SETTINGS
) -> list[np.ndarray]:
    results = painter.paint(requests, settings, threads=1)
    assert all(isinstance(result, Painting) for result in results), results
    return [result.pixels for result in results if isinstance(result, Painting)]


def test_neighbours_and_order_do_not_matter(painter: Painter) -> None:
    together = pixels(painter, REQUESTS)
    backwards = pixels(painter, REQUESTS[::-1])[::-1]
    alone = [pixels(painter, [request])[0] for request in REQUESTS]
    for a, b, c in zip(together, backwards, alone, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    assert len({image.tobytes() for image in together}) == len(REQUESTS)


def test_a_plain_prompt_equals_the_pipeline(painter: Painter, pipeline) -> None:
    """From folder to pixels, with nothing between: the diffusion part is Stable Diffusion's own."""
    prompts = ["a lion in a forest", "toy, street", "beach", "a skull"]
    got = pixels(painter, [Request(i, prompt, ()) for i, prompt in enumerate(prompts)])
    scheduler = pipeline.scheduler
    pipeline.scheduler = UniPCMultistepScheduler.from_config(scheduler.config)
    expected = pipeline(
        prompts,
        num_inference_steps=3,
        guidance_scale=4.0,
        generator=[torch.Generator().manual_seed(i) for i in range(4)],
    ).images
    pipeline.scheduler = scheduler
    for mine, theirs in zip(got, expected, strict=True):
        np.testing.assert_array_equal(mine, np.asarray(theirs))


def test_seed_emotion_prompt_and_mix_matter(painter: Painter) -> None:
    base = Request(1, "<emotion>", AWE)
    variants = [
        base,
        base._replace(seed=2),
        base._replace(emotions=FEAR),
        base._replace(prompt="<emotion> room"),
        base._replace(emotions=(Share("awe", 0.5), Share("fear", 0.5))),
    ]
    assert len({image.tobytes() for image in pixels(painter, variants)}) == len(variants)


def test_full_weight_fusion_is_the_emotion_itself(painter: Painter) -> None:
    fused = Request(1, "<emotion>", (Share("awe", 1.0), Share("fear", 0.0)))
    np.testing.assert_array_equal(
        pixels(painter, [fused])[0], pixels(painter, [Request(1, "<emotion>", AWE)])[0]
    )


def test_attributes_are_the_nearest_names_with_their_coefficients(
    painter: Painter, parts: ModelParts
) -> None:
    result = painter.paint([Request(7, "<emotion>", FEAR)], SETTINGS, threads=1)[0]
    assert isinstance(result, Painting)
    (chosen,) = result.attributes
    assert chosen.emotion == "fear"
    rows = {row["attribute"]: row for row in parts.coefficients.to_pylist()}
    assert rows[chosen.scene]["kind"] == "scene"
    assert rows[chosen.object]["kind"] == "object"
    assert chosen.scene_weight == pytest.approx(rows[chosen.scene]["alpha_fear"], rel=1e-5)
    assert chosen.object_weight == pytest.approx(rows[chosen.object]["alpha_fear"], rel=1e-5)


def test_names_of_drawn_attributes_may_stand_in_a_prompt(painter: Painter) -> None:
    plain, named = (
        Request(7, "<emotion>", FEAR),
        Request(7, "<emotion>, a {object} in a {scene}", FEAR),
    )
    result = painter.paint([named], SETTINGS, threads=1)[0]
    (chosen,) = result.attributes
    words = f"<emotion>, a {chosen.object} in a {chosen.scene}".replace("_", " ")
    written = painter.paint([plain._replace(prompt=words)], SETTINGS, threads=1)[0]
    np.testing.assert_array_equal(result.pixels, written.pixels)
    assert not np.array_equal(result.pixels, pixels(painter, [plain])[0])


def test_the_heaviest_emotion_names_the_attributes() -> None:
    request = Request(7, "{object} {scene} <emotion>", (Share("awe", 0.25), Share("fear", 0.75)))
    attributes = [Attributes("awe", "sky", 1, "bird", 1), Attributes("fear", "dark_alley", 1, None, 0)]
    assert with_attributes(request, attributes) == "object dark alley <emotion>"
    assert with_attributes(request._replace(emotions=()), []) == request.prompt


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request(1, "a room", AWE), "prompt 'a room' has no <emotion>"),
        (Request(1, "<emotion>", ()), "must not contain <emotion>"),
        (Request(1, "a lion " * 40 + "<emotion>", AWE), "too long"),
        (Request(1, "<emotion>", (Share("joy", 1.0),)), "unknown emotion 'joy'"),
        (Request(1, "<emotion>", (Share("sadness", 1.0),)), "no image of 'sadness'"),
    ],
)
def test_a_bad_request_fails_alone(painter: Painter, request_: Request, words: str) -> None:
    good = REQUESTS[:2]
    first, bad, second = painter.paint([good[0], request_, good[1]], SETTINGS, threads=1)
    assert isinstance(bad, Failure)
    assert words in bad.reason
    expected = pixels(painter, good)
    assert isinstance(first, Painting)
    assert isinstance(second, Painting)
    np.testing.assert_array_equal(first.pixels, expected[0])
    np.testing.assert_array_equal(second.pixels, expected[1])


def test_numbers_that_run_away_are_a_reason(parts: ModelParts) -> None:
    painter = Painter(parts.diffusion, net=parts.net, space=parts.space)
    mean = {key: value.copy() for key, value in parts.space.mean.items()}
    mean["cls"][1] = np.inf
    painter.space = type(parts.space)(mean, parts.space.std, parts.space.counts)
    bad, good = painter.paint(
        [Request(1, "<emotion>", AWE), Request(1, "<emotion>", FEAR)], SETTINGS, threads=1
    )
    assert isinstance(bad, Failure)
    assert bad.reason.startswith("non_finite")
    assert isinstance(good, Painting)


def test_the_thread_count_is_set_and_given_back(painter: Painter) -> None:
    before = torch.get_num_threads()
    seen = []
    one = SETTINGS._replace(micro_batch=1)
    handle = painter.diffusion.vae.decoder.register_forward_hook(
        lambda *_: seen.append(torch.get_num_threads())
    )
    painter.paint(REQUESTS[:1], one, threads=before + 1)
    handle.remove()
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


def test_a_batch_that_threads_cannot_share_evenly_is_refused(painter: Painter) -> None:
    with pytest.raises(ValueError, match="micro_batch 3 does not split over 2 threads"):
        painter.paint(REQUESTS, SETTINGS._replace(micro_batch=3), threads=2)
    painter.check(SETTINGS, threads=2)


def test_a_painter_without_a_net_paints_plain_prompts_only(parts: ModelParts) -> None:
    plain, emotional = Painter(parts.diffusion).paint([REQUESTS[2], REQUESTS[0]], SETTINGS, threads=1)
    assert isinstance(plain, Painting)
    assert isinstance(emotional, Failure)
    assert "needs a trained net" in emotional.reason


def test_a_space_that_lacks_a_fused_member_is_refused(parts: ModelParts) -> None:
    mean = {key: value for key, value in parts.space.mean.items() if key != "object"}
    with pytest.raises(ValueError, match="fuses object, which its emotion space lacks"):
        Painter(
            parts.diffusion, net=parts.net, space=type(parts.space)(mean, parts.space.std, parts.space.counts)
        )


PIPELINES = {
    "sd": (partial(write_pipeline, shift_factor=None), StableDiffusionPipeline),  # it knows no shift
    "sdxl": (write_xl_pipeline, StableDiffusionXLPipeline),
}
SAMPLERS = {"unipc": UniPCMultistepScheduler, "ddim": DDIMScheduler}


def meaning(word: str, parts: ModelParts, clip, folder) -> ModelParts:
    """A model whose condition is the embedding of one word, whatever the emotion."""
    diffusion = load_diffusion(str(folder))
    net = build_net(
        CONFIG, clip=clip, scene_names=SCENES, object_names=OBJECTS, text_width=diffusion.text_widths
    ).eval()
    net.fusion.offset.copy_(diffusion.embed_words([word])[0])
    net.fusion.scale.zero_()
    return ModelParts(**{**vars(parts), "net": net, "diffusion": diffusion})


@pytest.mark.slow
@pytest.mark.parametrize("kind", PIPELINES)
@pytest.mark.parametrize("guidance", [1.0, 7.5])
@pytest.mark.parametrize("scheduler", SAMPLERS)
@pytest.mark.parametrize("size", [(16, 16), (24, 16)])
def test_an_emotion_that_means_a_word_equals_the_pipeline_with_that_word(
    kind, guidance, scheduler, size, parts: ModelParts, clip, tmp_path
) -> None:
    """From emotion to pixels: fusion, placeholder, guidance, sampler and VAE against diffusers' own."""
    write, pipeline_class = PIPELINES[kind]
    folder = write(tmp_path / "pipeline")
    whole = meaning("lion", parts, clip, folder)
    painter = Painter(whole.diffusion, net=whole.net, space=whole.space)
    settings = SamplingSettings(
        scheduler, steps=4, guidance=guidance, width=size[0], height=size[1], micro_batch=2
    )
    forms = ["<emotion> room", "a <emotion> in a <emotion>"]
    got = painter.paint([Request(i, form, AWE) for i, form in enumerate(forms)], settings, threads=1)

    # the same modules on both sides: where weights lie in memory moves last bits
    names = ("vae", "text_encoder", *(["text_encoder_2"] if kind == "sdxl" else []))
    modules = {name: getattr(whole.diffusion, name) for name in names} | {"unet": whole.diffusion.denoiser}
    pipeline = pipeline_class.from_pretrained(folder, local_files_only=True, **modules)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = SAMPLERS[scheduler].from_config(pipeline.scheduler.config)
    plain = [form.replace("<emotion>", "lion") for form in forms]
    expected = pipeline(
        plain,
        num_inference_steps=4,
        guidance_scale=guidance,
        width=size[0],
        height=size[1],
        generator=[torch.Generator().manual_seed(i) for i in range(2)],
    ).images
    for mine, theirs in zip(got, expected, strict=True):
        assert isinstance(mine, Painting)
        assert mine.pixels.std() > 5
        np.testing.assert_array_equal(mine.pixels, np.asarray(theirs))


@pytest.mark.parametrize("denoiser", ["frozen", "full"])
def test_an_sdxl_model_folder_paints_the_same(denoiser, parts: ModelParts, clip, tmp_path) -> None:
    whole = meaning("lion", parts, clip, write_xl_pipeline(tmp_path / "pipeline"))
    choice = CONFIG.diffusion.model_copy(update={"denoiser": denoiser})
    whole = ModelParts(**{**vars(whole), "config": CONFIG.model_copy(update={"diffusion": choice})})
    save_model_folder(whole, tmp_path / "model")
    loaded = load_model_folder(tmp_path / "model")
    assert loaded.diffusion.is_xl
    settings = SETTINGS._replace(width=16, height=16, micro_batch=1)
    request = Request(3, "<emotion> room", AWE)
    first, second = (
        pixels(Painter(each.diffusion, net=each.net, space=each.space), [request], settings)[0]
        for each in (whole, loaded)
    )
    np.testing.assert_array_equal(first, second)


def test_watching_shows_every_step_and_changes_nothing(painter: Painter) -> None:
    seen: list[Step] = []
    previews: list[np.ndarray] = []

    def watch(step: Step) -> bool:
        seen.append(step)
        previews.append(step.preview())
        return True

    watched = painter.paint(REQUESTS, SETTINGS, threads=1, watch=watch)
    for result, expected in zip(watched, pixels(painter, REQUESTS), strict=True):
        np.testing.assert_array_equal(result.pixels, expected)
    assert sorted({step.indices for step in seen}) == [(0, 1, 2, 3), (4,), (5,)]
    assert [(step.number, step.of) for step in seen if step.indices == (4,)] == [(1, 3), (2, 3), (3, 3)]
    last = next(p for s, p in zip(seen, previews, strict=True) if s.indices == (5,) and s.number == 3)
    assert last.shape == (1, 32, 32, 3)
    np.testing.assert_allclose(last[0].astype(int), watched[5].pixels.astype(int), atol=1)


def test_a_stopped_micro_batch_ends_early_and_alone(painter: Painter) -> None:
    seen: list[Step] = []

    def watch(step: Step) -> bool:
        seen.append(step)
        return 0 not in step.indices

    results = painter.paint(REQUESTS, SETTINGS, threads=1, watch=watch)
    assert [step.number for step in seen if 0 in step.indices] == [1]
    assert results[:4] == [Failure(STOPPED)] * 4
    assert all(isinstance(result, Painting) for result in results[4:])
