"""What a baseline refuses before anything starts: one line each, which names the setting."""

from pathlib import Path

import pytest
import torch

from uniemo_ray.baselines.generation.checks import check_baseline
from uniemo_ray.baselines.generation.mapping import EmotionMapper, MapperShape
from uniemo_ray.config.generation_baselines import GenerationBaseline
from uniemo_ray.settings_file import load_config

OWN = "generation_baselines"


def check(name: GenerationBaseline, *overrides: str) -> None:
    check_baseline(name, load_config("tiny", list(overrides)))


@pytest.mark.parametrize("name", ["plain_prompt", "soft_prompt", "textual_inversion", "emogen", "dreambooth"])
def test_the_defaults_run_on_the_tiny_models(name: GenerationBaseline) -> None:
    check(name)


@pytest.mark.parametrize(
    ("name", "overrides", "words"),
    [
        ("plain_prompt", ["plain_prompt.prompt=an image"], "plain_prompt.prompt must contain {emotion}"),
        (
            "plain_prompt",
            ["plain_prompt.prompts={awe: a a a a a a a a a a a a a a a}"],
            "plain_prompt: prompt 'a a a a a a a a a a a a a a a' is longer than the text encoder",
        ),
        ("dreambooth", ["dreambooth.class_prompt=a melancholy melancholy {emotion}"], "is longer than the"),
        ("plain_prompt_sdxl", [], "needs generation_baselines.plain_prompt.sdxl_model: give SDXL's"),
        ("plain_prompt_sdxl", ["plain_prompt.sdxl_model=/nowhere"], "sdxl_model '/nowhere': "),
        ("plain_prompt_sdxl", ["plain_prompt.sdxl_model=tiny"], "has one text encoder, SDXL has two"),
        ("soft_prompt", ["soft_prompt.vectors=15"], "lies beyond 16 tokens, shorten it, or set vectors"),
        ("soft_prompt", ["soft_prompt.batch_size=1"], "soft_prompt.batch_size 1 is less than one pass of 1"),
        ("soft_prompt", ["soft_prompt.micro_batch=3"], "one pass of 3 images for each of 2 workers"),
        (
            "soft_prompt",
            ["soft_prompt={images_per_emotion: 1, batch_size: 16}"],
            "images_per_emotion 1 makes 8 images at most, less than one batch of 16",
        ),
        ("soft_prompt", ["soft_prompt={precision: fp16, zero_stage: 0}"], "needs zero_stage 1, 2 or 3"),
        (
            "textual_inversion",
            ["textual_inversion.initializer=melancholy"],
            "the initializer 'melancholy' of 'amusement' is 7 tokens",
        ),
        (
            "textual_inversion",
            ["textual_inversion.initializers={fear: red toy}"],
            "the initializer 'red toy' of 'fear' is ",
        ),
        ("textual_inversion", ["textual_inversion.initializers={joy: toy}"], "initializers names 'joy'"),
        ("textual_inversion", ["textual_inversion.vectors=13"], "lies beyond 16 tokens"),
        ("emogen", ["emogen={mapper: /nowhere/m.pth, space: /nowhere}"], "/nowhere/m.pth is no mapping"),
        ("emogen", ["emogen={mapper: 's3://b/m.pth', space: /nowhere}"], "expected a local path"),
    ],
)
def test_bad_settings(name: GenerationBaseline, overrides: list[str], words: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the words are in the table
        check(name, *(f"{OWN}.{override}" for override in overrides))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["soft_prompt", "textual_inversion", "emogen", "dreambooth"])
def test_a_random_crop_has_no_latents_to_train_on(name: GenerationBaseline) -> None:
    with pytest.raises(ValueError, match=r"set diffusion\.target=whole"):
        check(name, "diffusion.target=crop")
    check("plain_prompt", "diffusion.target=crop")


def test_only_the_unet_of_sdxl_trains(xl_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"only the UNet trains: set it to false"):
        check("dreambooth", f"diffusion.model={xl_folder}", f"{OWN}.dreambooth.train_text_encoder=true")
    check("dreambooth", f"diffusion.model={xl_folder}")
    check("plain_prompt_sdxl", f"{OWN}.plain_prompt.sdxl_model={xl_folder}")


def test_a_released_mapping_must_fit_the_diffusion_model(tmp_path: Path) -> None:
    torch.save(EmotionMapper(6, 4, MapperShape()).state_dict(), tmp_path / "mapper.pth")
    given = f"{OWN}.emogen={{mapper: {tmp_path}/mapper.pth, space: {tmp_path}}}"
    with pytest.raises(ValueError, match=r"makes words of width 4, but diffusion\.model 'tiny' has"):
        check("emogen", given)
    torch.save(EmotionMapper(6, 128, MapperShape()).state_dict(), tmp_path / "mapper.pth")
    with pytest.raises(ValueError, match=r"amusement_mean_v2\.pt"):
        check("emogen", given)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("run=[]", "at least one"),
        ("run=[emogen,emogen]", "distinct baselines"),
        ("run=[nothing]", "run.0"),
        ("per_emotion=1", "per_emotion"),
        ("textual_inversion.templates=[a photo]", "put {} where the new word goes"),
        ("textual_inversion.templates=[]", "at least one template"),
        ("textual_inversion.prompt=<emotion>", "put {} where the new word goes"),
        ("dreambooth.class_prompt=a photo", "put {emotion} where the name of the label goes"),
        ("emogen.mapper=m.pth", "mapper and space belong together"),
    ],
)
def test_settings_that_are_refused_when_they_are_read(override: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the words are in the table
        load_config(None, [f"{OWN}.{override}"])
    assert words in str(caught.value)
