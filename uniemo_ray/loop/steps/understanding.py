"""Steps that judge understanding alone: a model folder's answers on the test split, and their accuracy."""

# M images, C classes of the model

from functools import partial

from uniemo_ray.config import Config
from uniemo_ray.data.readers import label_space
from uniemo_ray.distributed.ingest import SAMPLES_FOLDER
from uniemo_ray.distributed.shards.actors.understanding import UnderstandActor
from uniemo_ray.distributed.shards.map_shards import map_shards
from uniemo_ray.emotions import LABEL_SPACES, stated_space
from uniemo_ray.inference.model_source import describe_model
from uniemo_ray.loop.step_pool import pool_of
from uniemo_ray.loop.steps.evaluation import positions, shown
from uniemo_ray.loop.steps.model_folders import MODEL
from uniemo_ray.metrics.accuracy import AccuracyCounts, coarsen
from uniemo_ray.metrics.score_sums import matrix
from uniemo_ray.store.columns import iterate_columns
from uniemo_ray.store.steps import StepContext, StepOutput

TEST = "test"


def predict(context: StepContext, config: Config, *, model: str | None) -> StepOutput:
    """Probabilities (M, C) for the test split, by a given model folder or by that of the step `model`."""
    folder = model or f"{context.artefacts_of('model').uri}/{MODEL}"
    space, fingerprint = describe_model(folder)
    rows = map_shards(
        context.artefacts_of("ingest"),
        {TEST: f"{SAMPLES_FOLDER}/{TEST}"},
        target=context.artefacts,
        actor=partial(UnderstandActor, model=folder, max_pixels=config.data.max_pixels),
        plan_hash=context.fingerprint,
        pool=pool_of(context, config),
    )
    own = {} if space.name in LABEL_SPACES else {"space": space.stated()}
    return StepOutput(outputs={"rows": rows, "model": fingerprint, "classes": space.name, **own})


def evaluate(context: StepContext, config: Config) -> StepOutput:
    """Accuracy on the test split.

    A model of finer classes than a set of two is judged by the valence that holds more probability.
    """
    space = label_space(config.data)
    found = context.inputs["predict"].outputs
    own = stated_space(**found["space"]) if "space" in found else LABEL_SPACES[found["classes"]]
    counts = AccuracyCounts(space)
    for table in iterate_columns(context.artefacts_of("predict"), f"{TEST}/", ["emotion", "probabilities"]):
        if table.num_rows:
            counts.update(positions(table, space), coarsen(matrix(table["probabilities"]), own, space))
    accuracy = counts.result()
    return StepOutput(
        metrics={
            "understanding": shown(accuracy, space),
            "two_class_sum": accuracy.two_class_sum,
            "standard_error": accuracy.standard_error,
            "images": accuracy.count,
        }
    )
