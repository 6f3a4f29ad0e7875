"""Which diffusers pipelines are computed faithfully; all others are refused by name, from their configs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_CLASSES = {
    "vae": ("AutoencoderKL",),
    "unet": ("UNet2DConditionModel",),
    "text_encoder": ("CLIPTextModel",),
    "text_encoder_2": ("CLIPTextModelWithProjection",),
}
_SAMPLERS = frozenset(
    f"{name}Scheduler"
    for name in (
        *("DDPM", "DDPMParallel", "DDIM", "DDIMParallel", "PNDM", "LMSDiscrete", "UniPCMultistep"),
        *(
            "EulerDiscrete",
            "EulerAncestralDiscrete",
            "HeunDiscrete",
            "KDPM2Discrete",
            "KDPM2AncestralDiscrete",
        ),
        *("DPMSolverMultistep", "DPMSolverSinglestep", "DPMSolverSDE", "DEISMultistep", "SASolver"),
    )
)
"""Schedulers of models that any other of them samples as well: all go by one noise schedule."""
_FEW_STEPS = ("LCMScheduler", "TCDScheduler")
_UNHEARD = ("time_cond_proj_dim", "class_embed_type", "num_class_embeds", "encoder_hid_dim_type")
"""Settings of a denoiser that hears more than the noisy picture, the step and the text."""
_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid")
_TARGETS = ("epsilon", "v_prediction", "sample")
_BETAS = ("beta_start", "beta_end", "beta_schedule")
_OPTIONAL = ("safety_checker", "feature_extractor", "image_encoder")


def check_kinds(path: Path, index: Mapping[str, Any]) -> None:
    """Refuse a pipeline that would load here and compute something else than it was trained for.

    Args:
        path: its folder, complete.
        index: its model_index.json.

    Raises:
        ValueError: one line that names the part and the setting.
    """
    unet = _config(path, "unet")
    faults = [
        *_wrong_classes(index),
        *_wrong_schedule(_config(path, "scheduler", "scheduler_config.json"), index),
        *_wrong_latents(_config(path, "vae"), unet),
        *_wrong_inputs(unet, is_xl=_has_class(index.get("text_encoder_2"))),
    ]
    if faults:
        raise ValueError(f"diffusion.model {path}: {faults[0]}: choose a Stable Diffusion 1, 2 or XL model")


def known_index(index: Mapping[str, Any], parts: list[str]) -> dict[str, Any]:
    """A model_index.json of these parts alone, so that diffusers opens a folder without the others."""
    dropped = [name for name, entry in index.items() if _has_class(entry) and name not in parts]
    if not dropped:
        return dict(index)
    kept = {name: [None, None] if name in dropped else entry for name, entry in index.items()}
    if "requires_safety_checker" in kept or "safety_checker" in dropped:
        kept["requires_safety_checker"] = False
    if not set(dropped) <= set(_OPTIONAL):  # a pipeline of another class needs them
        is_xl = "text_encoder_2" in parts
        kept = {name: entry for name, entry in kept.items() if name not in dropped or name in _OPTIONAL}
        kept["_class_name"] = "StableDiffusionXLPipeline" if is_xl else "StableDiffusionPipeline"
    return kept


def _wrong_classes(index: Mapping[str, Any]) -> list[str]:
    found = {part: str(index[part][1]) for part in _CLASSES if _has_class(index.get(part))}
    return [
        f"its {part} is a {name}, not a {_CLASSES[part][0]}"
        for part, name in found.items()
        if name not in _CLASSES[part]
    ]


def _wrong_schedule(config: Mapping[str, Any], index: Mapping[str, Any]) -> list[str]:
    kind = config.get("_class_name") or index["scheduler"][1]
    name = f"its scheduler {kind}"
    if config.get("trained_betas") is None and any(config.get(key) is None for key in _BETAS):
        return [f"{name} has no noise schedule in betas (beta_start, beta_end, beta_schedule)"]
    if config.get("trained_betas") is None and config["beta_schedule"] not in _SCHEDULES:
        return [
            f"{name} has the beta_schedule {config['beta_schedule']!r}, not one of {', '.join(_SCHEDULES)}"
        ]
    if config.get("prediction_type", "epsilon") not in _TARGETS:
        return [f"{name} predicts {config['prediction_type']!r}, not one of {', '.join(_TARGETS)}"]
    if config.get("use_flow_sigmas"):
        return [f"{name} goes by flow matching (use_flow_sigmas)"]
    if kind in _FEW_STEPS:
        return [f"{name} is for models distilled to a few steps, which other samplers do not sample"]
    if kind not in _SAMPLERS:
        return [f"{name} is of another family than diffusion by one noise schedule, such as DDIMScheduler"]
    if config.get("rescale_betas_zero_snr") and config.get("prediction_type", "epsilon") == "epsilon":
        return [
            f"{name} ends in pure noise (rescale_betas_zero_snr), of which the target epsilon says nothing"
        ]
    return []


def _wrong_inputs(unet: Mapping[str, Any], *, is_xl: bool) -> list[str]:
    named = [key for key in _UNHEARD if unet.get(key) is not None]
    if named:
        return [f"its unet also hears {named[0]} (a distilled, class-conditional or image-conditional model)"]
    added, expected = unet.get("addition_embed_type"), "text_time" if is_xl else None
    if added != expected:
        return [
            f"its unet has addition_embed_type {added!r}, expected {expected!r} beside these text encoders"
        ]
    return []


def _wrong_latents(vae: Mapping[str, Any], unet: Mapping[str, Any]) -> list[str]:
    named = [key for key in ("latents_mean", "latents_std") if vae.get(key) is not None]
    if named:
        return [f"its vae scales latents by {' and '.join(named)} per channel, not by scaling_factor alone"]
    found, expected = unet.get("in_channels"), vae.get("latent_channels")
    if None not in (found, expected) and found != expected:
        return [f"its unet takes {found} channels and its vae gives {expected} (an inpainting or edit model)"]
    return []


def _has_class(entry: object) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and all(entry)


def _config(path: Path, part: str, name: str = "config.json") -> dict[str, Any]:
    try:
        content = json.loads((path / part / name).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path / part / name} is no valid JSON ({error}): copy it again") from None
    return content if isinstance(content, dict) else {}
