"""Builds what a training worker needs for a baseline."""

from collections.abc import Callable, Mapping

import torch

from uniemo_ray.baselines.generation.dreambooth import build_dreambooth
from uniemo_ray.baselines.generation.emogen import build_emogen
from uniemo_ray.baselines.generation.inversion import build_soft_prompt, build_textual_inversion
from uniemo_ray.baselines.generation.stage import BaselineStage
from uniemo_ray.config.generation_baselines import TrainedBaseline
from uniemo_ray.models.diffusion import DiffusionParts, load_configured
from uniemo_ray.models.speed import tune_diffusion
from uniemo_ray.training.parts import StageParts

_BUILDERS: Mapping[TrainedBaseline, Callable[[BaselineStage, DiffusionParts, str], StageParts]] = {
    "soft_prompt": build_soft_prompt,
    "textual_inversion": build_textual_inversion,
    "emogen": build_emogen,
    "dreambooth": build_dreambooth,
}


def build_baseline(settings: BaselineStage) -> StageParts:
    """Objective, parameter groups and batches of a baseline."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    choice = settings.config.diffusion
    diffusion = load_configured(choice)
    if settings.baseline != "dreambooth":  # whose denoiser trains, in fp32
        tune_diffusion(diffusion, choice)
    if settings.own.gradient_checkpointing:
        diffusion.denoiser.enable_gradient_checkpointing()
    return _BUILDERS[settings.baseline](settings, diffusion.to(device), device)
