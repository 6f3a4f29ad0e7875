"""The prompts and words of each label."""

from collections.abc import Mapping, Sequence

from uniemo_ray.config import PLACEHOLDER
from uniemo_ray.config.generation_baselines import EMOTION, PlainPromptConfig, TextualInversionConfig


def plain_prompts(config: PlainPromptConfig, labels: Sequence[str]) -> dict[str, str]:
    """Prompt of each label, in their order; underscores of a label are read as spaces.

    Raises:
        ValueError: one line, for a prompt that names no label, or one of a label that there is not.
    """
    where = "generation_baselines.plain_prompt"
    check_labels(f"{where}.prompts", config.prompts, labels)
    found = {label: config.prompts.get(label, config.prompt) for label in labels}
    if any(label not in config.prompts for label in labels) and EMOTION not in config.prompt:
        raise ValueError(f"{where}.prompt must contain {EMOTION}, got {config.prompt!r}")
    for prompt in found.values():
        if PLACEHOLDER in prompt:
            raise ValueError(
                f"{where}: prompt {prompt!r} holds {PLACEHOLDER}, but a plain prompt has no condition to put "
                f"there: write {EMOTION}"
            )
    return named(found)


def named(prompts: Mapping[str, str]) -> dict[str, str]:
    """Prompts by label with the label's name in place of `{emotion}`."""
    return {label: prompt.replace(EMOTION, label.replace("_", " ")) for label, prompt in prompts.items()}


def initial_words(config: TextualInversionConfig, labels: Sequence[str]) -> dict[str, str]:
    """Word that the new one of each label starts from, in their order.

    Raises:
        ValueError: one line, for words of a label that there is not.
    """
    check_labels("generation_baselines.textual_inversion.initializers", config.initializers, labels)
    return named({label: config.initializers.get(label, config.initializer) for label in labels})


def check_labels(setting: str, given: Mapping[str, str], labels: Sequence[str]) -> None:
    """Raise ValueError, one line, where a setting names a label that there is not."""
    if unknown := sorted(set(given) - set(labels)):
        raise ValueError(f"{setting} names {unknown[0]!r}, but the data set's labels are {', '.join(labels)}")
