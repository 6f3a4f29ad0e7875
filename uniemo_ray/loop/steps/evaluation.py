"""Steps that measure: understanding on the test split, generated images, and the references."""

# M images, C emotions

import numpy as np
import pyarrow as pa

from uniemo_ray.config import Config
from uniemo_ray.data.readers import label_space
from uniemo_ray.distributed.shards.actors.clip import load_heads
from uniemo_ray.distributed.shards.actors.tables import conform
from uniemo_ray.emotions import LabelSpace
from uniemo_ray.feedback.schema import scores_schema
from uniemo_ray.inference.scorer import score_features
from uniemo_ray.loop.steps.data import feature_columns
from uniemo_ray.loop.steps.image_metrics import Judged, measure_set
from uniemo_ray.loop.steps.scored_images import SCORES_FOLDER
from uniemo_ray.metrics.accuracy import Accuracy, AccuracyCounts
from uniemo_ray.metrics.score_sums import matrix
from uniemo_ray.store.base import Store
from uniemo_ray.store.columns import iterate_columns
from uniemo_ray.store.fingerprint import fingerprint
from uniemo_ray.store.shards import commit_shard, drop_shards, entries_of, iterate_entries, seal_manifest
from uniemo_ray.store.steps import StepContext, StepOutput


def evaluate(context: StepContext, config: Config, *, round_: int, judged: Judged) -> StepOutput:
    """Accuracy of the round's network and all metrics of its images."""
    space = label_space(config.data)
    accuracy = measure_accuracy(context.artefacts_of(f"encode-{round_}"), space)
    generated = measure_step(context, config, judged, images=f"generate-{round_}", scores=f"score-{round_}")
    return StepOutput(metrics={"understanding": shown(accuracy, space), "generation": generated})


def shown(accuracy: Accuracy, space: LabelSpace) -> dict[str, object]:
    """What the summary shows of an accuracy."""
    return {
        "accuracy": accuracy.top1,
        "per_class": {name: accuracy.per_class.get(name) for name in space.labels},
        "confusion": accuracy.confusion,
        "top2": accuracy.top2,
        "two_class": accuracy.two_class,
    }


def measure_accuracy(encoded: Store, space: LabelSpace) -> Accuracy:
    """Accuracy of the logits (M, C) that `run_encoder` left of the test split, one shard at a time."""
    counts = AccuracyCounts(space)
    for table in iterate_columns(encoded, "test/", ["emotion", "logits"]):
        if table.num_rows:
            logits = matrix(table["logits"]).astype(np.float64)
            odds = np.exp(logits - logits.max(axis=1, keepdims=True))
            counts.update(positions(table, space), odds / odds.sum(axis=1, keepdims=True))
    return counts.result()


def positions(table: pa.Table, space: LabelSpace) -> list[int]:
    """Numbers (M,) of the labels in column `emotion`."""
    return [space.position(label) for label in table["emotion"].to_pylist()]


def reference_plain(context: StepContext, config: Config, *, judged: Judged) -> StepOutput:
    """Metrics of the plain prompt's images."""
    found = measure_step(context, config, judged, images="generate-plain", scores="score-plain")
    return StepOutput(metrics=found)


def reference_real(context: StepContext, config: Config, *, judged: Judged) -> StepOutput:
    """The same metrics of real test images; their Fréchet distances are to the training split."""
    score_real(context)
    source = context.artefacts_of("ingest")
    found = measure_set(
        context, config, source, "samples/test", judged=judged, scores=context.artefacts, is_generated=False
    )
    return StepOutput(metrics=found)


def score_real(context: StepContext) -> None:
    """Score the real test images from their features, shard by shard under the same names."""
    heads, features = load_heads(context.artefacts_of("scorers")), context.artefacts_of("features")
    target, entries = context.artefacts, entries_of(features, "test")
    names = [f"{SCORES_FOLDER}/{entry.name.rpartition('/')[2]}" for entry in entries]
    plans = [fingerprint([context.fingerprint, entry.sha256]) for entry in entries]
    seal_manifest(target)
    # an earlier release put all rows into one shard
    drop_shards(target, SCORES_FOLDER, keep=dict(zip(names, plans, strict=True)))
    tables = iterate_entries(features, entries, columns=["image_id", "emotion", "clip_feature"])
    for name, plan, table in zip(names, plans, tables, strict=True):
        schema = scores_schema(len(heads.labels))
        scores = conform(score_features(heads, feature_columns(table)), schema)
        commit_shard(target, name, scores, plan_hash=plan)


def measure_step(
    context: StepContext, config: Config, judged: Judged, *, images: str, scores: str
) -> dict[str, object]:
    """Metrics of a generating step's images, with the scores of a scoring step."""
    source, known = context.artefacts_of(images), context.artefacts_of(scores)
    return measure_set(context, config, source, "images", judged=judged, scores=known, is_generated=True)
