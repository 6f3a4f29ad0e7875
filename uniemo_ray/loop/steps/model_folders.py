"""Steps that put a model folder together, on a machine that reads all it needs from storage.

No weights pass through the driver: a folder may have 15 GB.
"""

from dataclasses import dataclass
from functools import partial

from uniemo_ray.config import Config
from uniemo_ray.data.readers import label_space
from uniemo_ray.distributed.scorers import on_a_worker
from uniemo_ray.distributed.shards.actors.clip import load_heads
from uniemo_ray.feedback.real_subset import RealSubset
from uniemo_ray.inference.model_folder import ModelParts, save_model_folder
from uniemo_ray.loop.step_pool import pool_of
from uniemo_ray.loop.steps.scorers import coefficient_table
from uniemo_ray.loop.steps.training import space_of, trained_settings
from uniemo_ray.models.clip import load_clip
from uniemo_ray.models.diffusion import DiffusionParts
from uniemo_ray.models.pipeline_folder import PipelineFolder, configured_pipeline
from uniemo_ray.statistics.emotion_space import EmotionSpace
from uniemo_ray.statistics.gaussian_space import GaussianSpace
from uniemo_ray.store.base import Store
from uniemo_ray.store.steps import StepContext, StepOutput
from uniemo_ray.training.stage import load_net, load_trained_diffusion
from uniemo_ray.training.stage_settings import StageSettings

MODEL = "model"


@dataclass(frozen=True)
class Ingredients:
    """What a model folder is made of, and where it goes."""

    settings: StageSettings
    """Of the stage whose network it is."""
    space: EmotionSpace | None
    """None where stage 1 alone has trained: the model understands and makes no images."""
    coefficients: Store
    """What the step of that name has left."""
    scorers: Store
    """The same."""
    target: str
    """Address of the folder."""


def model(
    context: StepContext, config: Config, *, round_: int, subset: RealSubset | None = None
) -> StepOutput:
    """Emotion space of the round, and its complete model folder."""
    encoded, pool = context.artefacts_of(f"encode-{round_}"), pool_of(context, config)
    space = space_of(encoded, label_space(config.data), config, pool=pool, subset=subset)
    settings = trained_settings(context, config, stage="joint", step=f"joint-{round_}")
    fingerprint = _write_elsewhere(context, config, settings, space)
    return StepOutput(outputs={"model": fingerprint, "space": space.counts.tolist()})


def understanding_model(context: StepContext, config: Config, *, step: str) -> StepOutput:
    """The model folder of stage 1 alone: it understands and makes no images."""
    settings = trained_settings(context, config, stage="understanding", step=step)
    return StepOutput(outputs={"model": _write_elsewhere(context, config, settings, None)})


def _write_elsewhere(
    context: StepContext, config: Config, settings: StageSettings, space: EmotionSpace | None
) -> str:
    ingredients = Ingredients(
        settings,
        space,
        coefficients=context.artefacts_of("coefficients"),
        scorers=context.artefacts_of("scorers"),
        target=f"{context.artefacts.uri}/{MODEL}",
    )
    return on_a_worker(partial(write_model, ingredients), pool=pool_of(context, config))


def write_model(made_of: Ingredients) -> str:
    """Write a stage's network with all that belongs to it; returns the fingerprint.

    Files of a diffusion model that did not train are copied without loading them.
    """
    config, settings = made_of.settings.config, made_of.settings
    net, labels = load_net(settings), label_space(config.data)
    clip = load_clip(config.encoder.clip, pretrained=config.encoder.clip_pretrained)
    diffusion = None if made_of.space is None else _diffusion(settings)
    whole = ModelParts(
        config=config,
        clip_config=clip.config,
        merges=clip.merges.read_bytes() if clip.merges else None,
        net=net,
        diffusion=diffusion if isinstance(diffusion, DiffusionParts) else None,
        pipeline=diffusion if isinstance(diffusion, PipelineFolder) else None,
        space=made_of.space or GaussianSpace.empty(net.fusion.members, net.encoder.width, labels.labels),
        coefficients=coefficient_table(made_of.coefficients),
        scorers=load_heads(made_of.scorers),
        labels=labels,
        is_stage_1=made_of.space is None,
    )
    return save_model_folder(whole, made_of.target)


def _diffusion(settings: StageSettings) -> DiffusionParts | PipelineFolder:
    """The files of a diffusion model that did not train, else the model as it was trained."""
    if settings.config.diffusion.denoiser == "frozen":
        return configured_pipeline(settings.config.diffusion)
    return load_trained_diffusion(settings)
