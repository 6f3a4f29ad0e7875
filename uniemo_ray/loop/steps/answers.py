"""A network's answers on the test split, image by image, for comparisons that are paired by image."""

# M test images, C classes

from functools import partial

import numpy as np
from numpy.typing import NDArray

from uniemo_ray.config import Config
from uniemo_ray.data.readers import label_space
from uniemo_ray.distributed.ingest import SAMPLES_FOLDER
from uniemo_ray.distributed.shards.actors.encoder import EncoderActor
from uniemo_ray.distributed.shards.map_shards import map_shards
from uniemo_ray.emotions import LabelSpace
from uniemo_ray.loop.step_pool import pool_of
from uniemo_ray.loop.steps.data import read_names
from uniemo_ray.loop.steps.evaluation import measure_accuracy, positions
from uniemo_ray.loop.steps.training import NET_FILE
from uniemo_ray.metrics.score_sums import matrix
from uniemo_ray.store.base import Store
from uniemo_ray.store.columns import iterate_columns
from uniemo_ray.store.steps import StepContext, StepOutput
from uniemo_ray.training.stage_settings import StageName, StageSettings

TEST = "test"


def answers(context: StepContext, config: Config, *, stage: StageName, step: str) -> StepOutput:
    """Logits (M, C) of the network that a training step has left, for every test image."""
    names = read_names(context)
    settings = StageSettings(
        stage=stage,
        config=config,
        scenes=names.scenes,
        objects=names.objects,
        weights=f"{context.artefacts_of(step).uri}/{NET_FILE}",
        name_embeddings=context.artefacts_of("names").uri,
    )
    rows = map_shards(
        context.artefacts_of("ingest"),
        {TEST: f"{SAMPLES_FOLDER}/{TEST}"},
        target=context.artefacts,
        actor=partial(EncoderActor, stage=settings, max_pixels=config.data.max_pixels),
        plan_hash=context.fingerprint,
        pool=pool_of(context, config),
    )
    accuracy = measure_accuracy(context.artefacts, label_space(config.data))
    return StepOutput(outputs={"rows": rows}, metrics={"accuracy": accuracy.top1})


def read_hits(store: Store, space: LabelSpace) -> dict[str, float]:
    """Of every test image: 1 if the likeliest class is its label, else 0."""
    found: dict[str, float] = {}
    for table in iterate_columns(store, f"{TEST}/", ["image_id", "emotion", "logits"]):
        if table.num_rows:
            chosen: NDArray[np.int64] = matrix(table["logits"]).argmax(axis=1)
            hits = chosen == np.array(positions(table, space))
            found |= dict(zip(table["image_id"].to_pylist(), hits.astype(float).tolist(), strict=True))
    return found
