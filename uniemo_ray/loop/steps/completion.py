"""Steps that make an imported model able to generate; nothing is trained but the scorers.

Scorers, coefficients and emotion space follow from the model and a training split alone.
"""

from dataclasses import dataclass, replace
from functools import partial

from uniemo_ray.config import Config
from uniemo_ray.data.readers import label_space
from uniemo_ray.distributed.scorers import on_a_worker
from uniemo_ray.distributed.shards.actors.clip import load_heads
from uniemo_ray.inference.compact import NET
from uniemo_ray.inference.model_folder import load_model_folder, save_model_folder
from uniemo_ray.loop.source_model import SourceModel, check_names
from uniemo_ray.loop.step_pool import pool_of
from uniemo_ray.loop.steps.data import read_names
from uniemo_ray.loop.steps.evaluation import measure_accuracy
from uniemo_ray.loop.steps.model_folders import MODEL
from uniemo_ray.loop.steps.scorers import coefficient_table, read_coefficients
from uniemo_ray.loop.steps.training import run_encoder, space_of
from uniemo_ray.statistics.emotion_space import EmotionSpace
from uniemo_ray.store.base import Store
from uniemo_ray.store.steps import StepContext, StepOutput
from uniemo_ray.training.stage_settings import StageSettings

CARD = """# UniEmo, completed

Its network came from {source}; scorers, coefficients and emotion space were computed from {data}.
"""


def encode(context: StepContext, config: Config, *, source: SourceModel) -> StepOutput:
    """Features of every training and test image by the model, and its accuracy on the latter."""
    check_names(source, read_names(context))
    stage = StageSettings(
        stage="joint",
        config=config,
        scenes=source.names.scenes,
        objects=source.names.objects,
        weights=f"{source.uri}/{NET}",
    )
    rows = run_encoder(context, config, stage)
    accuracy = measure_accuracy(context.artefacts, label_space(config.data))
    return StepOutput(outputs={"rows": rows}, metrics={"test_accuracy": accuracy.top1})


def complete(context: StepContext, config: Config, *, source: SourceModel) -> StepOutput:
    """The model folder with all that it lacked; its network and its diffusion model stay as they are."""
    pool = pool_of(context, config)
    space = space_of(context.artefacts_of("encode"), source.labels, config, pool=pool)
    made_of = Completed(
        source.uri,
        space,
        coefficients=context.artefacts_of("coefficients"),
        scorers=context.artefacts_of("scorers"),
        card=CARD.format(source=source.uri, data=config.data.root or "EmoSketch"),
        target=f"{context.artefacts.uri}/{MODEL}",
    )
    fingerprint = on_a_worker(partial(write_completed, made_of), pool=pool)
    return StepOutput(outputs={"model": fingerprint, "space": space.counts.tolist()})


@dataclass(frozen=True)
class Completed:
    """A model, what it lacked, and where the whole goes."""

    source: str
    """Address of the model's folder."""
    space: EmotionSpace
    coefficients: Store
    """What the step of that name has left."""
    scorers: Store
    """The same."""
    card: str
    """README.md."""
    target: str
    """Address of the folder."""


def write_completed(made_of: Completed) -> str:
    """Write the whole model folder; returns the fingerprint."""
    parts = load_model_folder(made_of.source)
    alpha = read_coefficients(made_of.coefficients)
    parts.net.scenes.set_coefficients(alpha["scene"])
    parts.net.objects.set_coefficients(alpha["object"])
    whole = replace(
        parts,
        space=made_of.space,
        coefficients=coefficient_table(made_of.coefficients),
        scorers=load_heads(made_of.scorers),
        card=made_of.card,
    )
    return save_model_folder(whole, made_of.target)
