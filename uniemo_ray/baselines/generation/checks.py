"""What a baseline asks of the settings and of the files that they name."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from transformers import CLIPTokenizer

from uniemo_ray.addresses import local_path
from uniemo_ray.baselines.generation.emogen import shape_of
from uniemo_ray.baselines.generation.mapping import read_clouds, read_mapper
from uniemo_ray.baselines.generation.prompts import initial_words, named, plain_prompts
from uniemo_ray.baselines.generation.tokens import written
from uniemo_ray.config import Config
from uniemo_ray.config.generation_baselines import BaselineTraining, GenerationBaseline, TrainedBaseline
from uniemo_ray.data.readers import label_space
from uniemo_ray.models.conditioning import fits, tokenize
from uniemo_ray.models.diffusion import load_tokenizers
from uniemo_ray.models.pipeline_folder import configured_pipeline, find_pipeline


def check_baseline(name: GenerationBaseline, config: Config) -> None:
    """Look at what a baseline will use; no weights are read.

    Raises:
        ValueError: one line that names the setting and what is wrong.
    """
    _CHECKS[name](config)


def _check_plain(config: Config) -> None:
    prompts = plain_prompts(config.generation_baselines.plain_prompt, label_space(config.data).labels)
    _check_words(config, prompts.values(), name="plain_prompt")


def _check_sdxl(config: Config) -> None:
    plain_prompts(config.generation_baselines.plain_prompt, label_space(config.data).labels)
    name, own = "generation_baselines.plain_prompt.sdxl_model", config.generation_baselines.plain_prompt
    if own.sdxl_model is None:
        raise ValueError(
            f"baseline plain_prompt_sdxl needs {name}: give SDXL's diffusers folder, or take the baseline "
            f"out of generation_baselines.run"
        )
    try:
        folder = find_pipeline(own.sdxl_model, variant=own.sdxl_variant)
    except ValueError as error:
        raise ValueError(str(error).replace("diffusion.model", name)) from None
    if not folder.is_xl:
        raise ValueError(f"{name} {own.sdxl_model!r} has one text encoder, SDXL has two: give SDXL's folder")


def _check_soft_prompt(config: Config) -> None:
    own = config.generation_baselines.soft_prompt
    _check_training(config, own, name="soft_prompt")
    _check_lengths(load_tokenizers(config.diffusion), [written("{}", own.vectors)], name="soft_prompt")


def _check_textual_inversion(config: Config) -> None:
    own, where = config.generation_baselines.textual_inversion, "generation_baselines.textual_inversion"
    _check_training(config, own, name="textual_inversion")
    tokenizers = load_tokenizers(config.diffusion)
    for label, word in initial_words(own, label_space(config.data).labels).items():
        for tokenizer in tokenizers:
            if len(pieces := tokenizer.tokenize(word)) != 1:
                raise ValueError(
                    f"{where}: the initializer {word!r} of {label!r} is {len(pieces)} tokens "
                    f"({' '.join(pieces)}), but it must be a single token: set initializers to a word of the "
                    f"vocabulary, such as {{{label}: photo}}"
                )
    prompts = [written(prompt, own.vectors) for prompt in (*own.templates, own.prompt)]
    _check_lengths(tokenizers, prompts, name="textual_inversion")


def _check_emogen(config: Config) -> None:
    own = config.generation_baselines.emogen
    if own.mapper is None:
        _check_training(config, own, name="emogen")
        return
    mapper = read_mapper(local_path(own.mapper), shape_of(own))
    widths = configured_pipeline(config.diffusion).text_widths
    if mapper.text_width != sum(widths):
        raise ValueError(
            f"generation_baselines.emogen.mapper {own.mapper} makes words of width {mapper.text_width}, but "
            f"diffusion.model {config.diffusion.model!r} has text encoders of {widths}"
        )
    read_clouds(local_path(str(own.space)), label_space(config.data).labels, width=mapper.width)


def _check_dreambooth(config: Config) -> None:
    own = config.generation_baselines.dreambooth
    _check_training(config, own, name="dreambooth")
    labels = label_space(config.data).labels
    for prompt in (own.instance_prompt, own.class_prompt):
        _check_words(config, named(dict.fromkeys(labels, prompt)).values(), name="dreambooth")
    if own.train_text_encoder and configured_pipeline(config.diffusion).is_xl:
        raise ValueError(
            f"generation_baselines.dreambooth.train_text_encoder is set, but of SDXL (diffusion.model "
            f"{config.diffusion.model!r}) only the UNet trains: set it to false"
        )


def _check_words(config: Config, prompts: Iterable[str], *, name: GenerationBaseline) -> None:
    """Refuse prompts of words that the text encoders would cut off, perhaps with the label."""
    tokenizers = load_tokenizers(config.diffusion)
    for prompt in prompts:
        if not all(fits(tokenizer, prompt) for tokenizer in tokenizers):
            raise ValueError(
                f"generation_baselines.{name}: prompt {prompt!r} is longer than the text encoder of "
                f"diffusion.model reads: shorten it"
            )


def _check_lengths(
    tokenizers: Sequence[CLIPTokenizer], prompts: Sequence[str], *, name: TrainedBaseline
) -> None:
    """Refuse prompts whose learnt words do not fit, which would be cut off."""
    try:
        for tokenizer in tokenizers:
            tokenize(tokenizer, list(prompts))
    except ValueError as error:
        raise ValueError(
            f"generation_baselines.{name}: {error}, or set vectors to a smaller number"
        ) from None


def _check_training(config: Config, own: BaselineTraining, *, name: TrainedBaseline) -> None:
    where = f"generation_baselines.{name}"
    if config.diffusion.target != "whole":
        raise ValueError(
            f"baseline {name} trains on the latents of whole images: set diffusion.target=whole, or take it "
            f"out of generation_baselines.run"
        )
    workers, least = config.resources.most_workers, own.micro_batch or 1
    if least * workers > own.batch_size:
        raise ValueError(
            f"{where}.batch_size {own.batch_size} is less than one pass of {least} images for each of "
            f"{workers} workers: raise it, or lower resources.workers"
        )
    few = own.images_per_emotion
    if few is not None and (most := few * len(label_space(config.data).labels)) < own.batch_size:
        raise ValueError(
            f"{where}.images_per_emotion {few} makes {most} images at most, less than one batch of "
            f"{own.batch_size}: raise it, or lower batch_size"
        )
    if own.precision == "fp16" and own.zero_stage == 0:
        raise ValueError(f"{where}: precision fp16 needs zero_stage 1, 2 or 3, which know a loss scale")


_CHECKS: Mapping[GenerationBaseline, Callable[[Config], None]] = {
    "plain_prompt": _check_plain,
    "plain_prompt_sdxl": _check_sdxl,
    "soft_prompt": _check_soft_prompt,
    "textual_inversion": _check_textual_inversion,
    "emogen": _check_emogen,
    "dreambooth": _check_dreambooth,
}
