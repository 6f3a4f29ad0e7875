"""What is checked before the job `baselines` starts anything: one clear line for each mistake."""

from collections.abc import Callable

from uniemo_ray.baselines.understanding.language_models import load_processor
from uniemo_ray.baselines.understanding.prompts import PromptTokens, spoken
from uniemo_ray.baselines.understanding.whole_networks import load_resnet
from uniemo_ray.config import Config
from uniemo_ray.config.baselines import (
    LANGUAGE_BASELINES,
    TRAINED_BASELINES,
    BaselineTraining,
    CoCoOpConfig,
    CoOpConfig,
    LanguageBaseline,
    LanguageModelConfig,
    UnderstandingBaseline,
)
from uniemo_ray.data.readers import label_space
from uniemo_ray.loop.preflight import check_clip, check_data

WITH_CLIP: tuple[UnderstandingBaseline, ...] = ("zero_shot", "linear_probe", "coop", "cocoop", "fine_tuning")
WITH_PROMPTS: tuple[UnderstandingBaseline, ...] = ("zero_shot", "coop", "cocoop")


def check_baselines(config: Config, *, with_data: bool = True) -> None:
    """Check the data set and what every baseline of `baselines.run` needs.

    Args:
        config: of the run.
        with_data: whether the data folder will be read; it need not be there when all of it was ingested.

    Raises:
        ValueError: one line that names the setting and what is wrong.
    """
    asked = config.baselines.run
    if with_data:
        check_data(config.data)
    if any(name in WITH_CLIP for name in asked):
        check_clip(config.encoder)
    if any(name in WITH_PROMPTS for name in asked):
        _check_prompts(config)
    for name in asked:
        if name in TRAINED_BASELINES:
            _check_training(config, name)
    if "resnet" in asked:
        load_resnet(config.evaluation.weights_dir)
    for language_model in LANGUAGE_BASELINES:
        if language_model in asked:
            _check_language_model(config, language_model)


def _check_prompts(config: Config) -> None:
    """Every prompt fits into the text tower."""
    tokens = PromptTokens.of_clip(config.encoder.clip, pretrained=config.encoder.clip_pretrained)
    checks: dict[UnderstandingBaseline, Callable[[Config, PromptTokens], None]] = {
        "zero_shot": _check_ensemble,
        "coop": _check_coop,
        "cocoop": _check_cocoop,
    }
    for name, check in checks.items():
        if name in config.baselines.run:
            check(config, tokens)


def _check_ensemble(config: Config, tokens: PromptTokens) -> None:
    for prompt in config.baselines.zero_shot.prompts:
        for label in label_space(config.data).labels:
            tokens.check_prompt(prompt.format(spoken(label)), setting="baselines.zero_shot.prompts")


def _check_coop(config: Config, tokens: PromptTokens) -> None:
    own = config.baselines.coop
    if own.is_class_specific and own.start:
        raise ValueError(
            "baselines.coop.start gives all classes the same words, but is_class_specific is true: leave one "
            "of them out"
        )
    _check_context(config, tokens, own, "baselines.coop")


def _check_cocoop(config: Config, tokens: PromptTokens) -> None:
    _check_context(config, tokens, config.baselines.cocoop, "baselines.cocoop")


def _check_context(
    config: Config, tokens: PromptTokens, own: CoOpConfig | CoCoOpConfig, section: str
) -> None:
    labels = label_space(config.data).labels
    tokens.check_context(own.context_length, labels, setting=f"{section}.context_length")
    if own.start is not None:
        tokens.check_start(own.start, own.context_length, setting=f"{section}.start")


def _check_training(config: Config, name: UnderstandingBaseline) -> None:
    own: BaselineTraining = getattr(config.baselines, name)
    section, workers = f"baselines.{name}", config.resources.most_workers
    if (own.micro_batch or 1) * workers > own.batch_size:
        raise ValueError(
            f"{section}.batch_size {own.batch_size} is less than one pass of {own.micro_batch or 1} images "
            f"for each of {workers} workers: raise it, or lower resources.workers"
            + (f" or {section}.micro_batch" if own.micro_batch else "")
        )
    images = config.feedback.real_images or (
        config.data.sketch_train if config.data.kind == "sketch" else None
    )
    if images is not None and images < own.batch_size:
        raise ValueError(
            f"{section}.batch_size {own.batch_size} is more than the {images} training images: lower it"
        )


def _check_language_model(config: Config, name: LanguageBaseline) -> None:
    own: LanguageModelConfig = getattr(config.baselines, name)
    if own.model is None:
        raise ValueError(
            f"baselines.{name}.model is empty: give the model's folder in transformers' layout, or a hub id"
        )
    try:
        load_processor(own.model)
    except ValueError as error:
        raise ValueError(f"baselines.{name}: {error}") from None
