"""Which settings a model folder keeps: those that decide what it gives, and those it was trained with."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from uniemo_ray.config import Config
from uniemo_ray.inference.checksums import CONFIG, TRAINING
from uniemo_ray.settings_view import setting
from uniemo_ray.text import one_line

OUTPUT_SETTINGS = (
    "encoder.queries",
    "encoder.query_length",
    "encoder.stage_layers",
    "encoder.interactive_layers",
    "encoder.interactive_context",
    "encoder.interactive_residual",
    "encoder.preprocess",
    "fusion.members",
    "fusion.use_coefficients",
    "fusion.match",
    "fusion.condition_head",
    "losses.learn_temperature",
    "diffusion.variant",
    "diffusion.denoiser",
    "diffusion.prompt",
    "diffusion.size_px",
    "diffusion.steps",
    "diffusion.guidance",
    "diffusion.scheduler",
    "diffusion.frozen_dtype",
    "diffusion.channels_last",
    "diffusion.vae_slicing",
    "generation.micro_batch",
    "generation.threads",
)
"""What equal weights compute differently by. The folder's fingerprint covers these and no others."""
_LATER = {"fusion.match": "projected", "fusion.condition_head": "own", "encoder.preprocess": "clip"}
"""Of these, what older folders do not state and what it is there: stated only where it is something else, so
that a model keeps its fingerprint."""
TRAINING_SETTINGS = ("seed", "encoder", "fusion", "losses", "diffusion")
"""What the weights came from. Whoever trains or completes the model again goes on with it."""


def output_settings(config: Config) -> dict[str, Any]:
    """`OUTPUT_SETTINGS` of a config as nested plain JSON."""
    found: dict[str, Any] = {}
    for name in OUTPUT_SETTINGS:
        section, _, field = name.partition(".")
        value = setting(config, name)
        if name not in _LATER or value != _LATER[name]:
            found.setdefault(section, {})[field] = value
    return found


def training_settings(config: Config) -> dict[str, Any]:
    """`TRAINING_SETTINGS` of a config as plain JSON."""
    return {name: setting(config, name) for name in TRAINING_SETTINGS}


def stated_settings(folder: Path, header: dict[str, Any]) -> dict[str, Any]:
    """The sections that a model folder states, for a config.

    Args:
        folder: the folder; one from before `training.json` states all of them in `config.json`.
        header: content of `config.json`.

    Raises:
        ValueError: one line that names the damaged file.
    """
    path = folder / TRAINING
    try:
        trained = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        for section, values in header["config"].items():
            trained[section] = {**trained.get(section, {}), **values} if isinstance(values, dict) else values
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise _unreadable(folder, error) from None
    found: dict[str, Any] = trained
    return found


def read_settings(folder: Path, header: dict[str, Any]) -> Config:
    """The settings of a model folder; what it does not state has its default.

    Raises:
        ValueError: one line that names the file and what is wrong with it.
    """
    try:
        return Config.model_validate(stated_settings(folder, header))
    except ValidationError as error:
        raise _unreadable(folder, error) from None


def _unreadable(folder: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{folder / CONFIG} does not hold a model's settings ({one_line(error)}): save it again"
    )
