"""Steps that measure: understanding on the test split, generated images, and the references."""

# M images, C emotions

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from uniemo_ray.config import Config
from uniemo_ray.data.readers import label_space
from uniemo_ray.distributed.datasets import read_split
from uniemo_ray.distributed.shards.actors.clip import load_heads
from uniemo_ray.distributed.shards.actors.tables import conform
from uniemo_ray.emotions import LabelSpace
from uniemo_ray.feedback.schema import SCORES
from uniemo_ray.inference.scorer import score_features
from uniemo_ray.loop.steps.data import read_features
from uniemo_ray.loop.steps.image_metrics import measure_set
from uniemo_ray.metrics.accuracy import Accuracy, AccuracyCounts
from uniemo_ray.store.shards import commit_shard, read_shards
from uniemo_ray.store.steps import StepContext, StepOutput


def evaluate(context: StepContext, config: Config, *, round_: int) -> StepOutput:
    """Accuracy of the round's network and all metrics of its images."""
    logits = read_split(context.artefacts_of(f"encode-{round_}"), "test", columns=["emotion", "logits"])
    space = label_space(config.data)
    accuracy = measure_accuracy(logits, space)
    generated = measure_step(context, config, images=f"generate-{round_}", scores=f"score-{round_}")
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


def measure_accuracy(table: pa.Table, space: LabelSpace) -> Accuracy:
    """Accuracy of logits (M, C) in column `logits` against `emotion`."""
    logits = np.stack(table["logits"].to_numpy(zero_copy_only=False)).astype(np.float64)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return measure_probabilities(table["emotion"].to_pylist(), odds / odds.sum(axis=1, keepdims=True), space)


def measure_probabilities(labels: Sequence[str], probabilities: np.ndarray, space: LabelSpace) -> Accuracy:
    """Accuracy of probabilities (M, C) against M labels."""
    counts = AccuracyCounts(space)
    counts.update([space.position(label) for label in labels], probabilities)
    return counts.result()


def reference_plain(context: StepContext, config: Config) -> StepOutput:
    """Metrics of the plain prompt's images."""
    return StepOutput(metrics=measure_step(context, config, images="generate-plain", scores="score-plain"))


def reference_real(context: StepContext, config: Config) -> StepOutput:
    """The same metrics of real test images; their Fréchet distances are to the training split."""
    heads = load_heads(context.artefacts_of("scorers"))
    known = conform(score_features(heads, read_features(context, "test")), SCORES)
    commit_shard(context.artefacts, "scores/part-00000", known, plan_hash=context.fingerprint)
    source = context.artefacts_of("ingest")
    found = measure_set(context, config, source, "samples/test", scores=known, is_generated=False)
    return StepOutput(metrics=found)


def measure_step(context: StepContext, config: Config, *, images: str, scores: str) -> dict[str, object]:
    """Metrics of a generating step's images, with the scores of a scoring step."""
    known = read_shards(context.artefacts_of(scores), "scores/")
    source = context.artefacts_of(images)
    return measure_set(context, config, source, "images", scores=known, is_generated=True)
