"""Steps that measure: understanding on the test split, generated images, and the references."""

# M images, C emotions

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uniemo_ray.config import Config
from uniemo_ray.data.images import decode_rgb, to_square
from uniemo_ray.data.readers import label_space
from uniemo_ray.distributed.actors.clip import load_heads
from uniemo_ray.distributed.actors.inception import InceptionActor
from uniemo_ray.distributed.actors.tables import conform
from uniemo_ray.distributed.datasets import read_split
from uniemo_ray.distributed.map_shards import map_shards
from uniemo_ray.distributed.steps.data import read_features
from uniemo_ray.emotions import LabelSpace
from uniemo_ray.feedback.schema import SCORES
from uniemo_ray.inference.scorer import score_features
from uniemo_ray.metrics.accuracy import Accuracy, AccuracyCounts
from uniemo_ray.metrics.frechet import FeatureSums
from uniemo_ray.metrics.generation import ImageSet, Yardstick, feature_sums, measure_images
from uniemo_ray.metrics.inception import INCEPTION_FILE
from uniemo_ray.metrics.weights import has_weights
from uniemo_ray.store.base import Store
from uniemo_ray.store.shards import commit_shard, read_shards
from uniemo_ray.store.steps import StepContext, StepOutput
from uniemo_ray.tiny import WEIGHTS
from uniemo_ray.tiny.build import load_recogniser

INCEPTION = "inception"


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
    """The same metrics of real test images; their Fréchet distance is to the training split."""
    source = context.artefacts_of("ingest")
    heads = load_heads(context.artefacts_of("scorers"))
    known = conform(score_features(heads, read_features(context, "test")), SCORES)
    commit_shard(context.artefacts, "scores/part-00000", known, plan_hash=context.fingerprint)
    filesystem, root = source.arrow()
    paths = [f"{root}/{key}" for key in source.list("samples/test") if key.endswith(".parquet")]
    table = pa.concat_tables([pq.read_table(path, filesystem=filesystem) for path in paths])
    inception = inception_features(context, config, source, "samples/test")
    return StepOutput(metrics=_measure(context, config, table, known, inception))


def measure_step(context: StepContext, config: Config, *, images: str, scores: str) -> dict[str, object]:
    """Metrics of a generating step's images, with the scores of a scoring step."""
    source = context.artefacts_of(images)
    table = read_shards(source, "images/", columns=["image_id", "emotion", "image", "reason"])
    table = table.filter(pc.is_null(table["reason"]))
    inception = inception_features(context, config, source, "images")
    return _measure(context, config, table, read_shards(context.artefacts_of(scores), "scores/"), inception)


def inception_step(context: StepContext, config: Config) -> StepOutput:
    """Inception-v3 features of the training split, what true FID compares with."""
    inception_features(context, config, context.artefacts_of("ingest"), "samples/train")
    return StepOutput()


def inception_features(context: StepContext, config: Config, source: Store, folder: str) -> pa.Table | None:
    """Features of a folder's images, or None when the user has no weights for them."""
    if not has_weights(config.evaluation.weights_dir, INCEPTION_FILE):
        return None
    map_shards(
        source,
        {INCEPTION: folder},
        target=context.artefacts,
        actor=InceptionActor,
        settings={"weights_dir": config.evaluation.weights_dir, "size_px": config.diffusion.size_px},
        plan_hash=context.fingerprint,
        resources=config.resources,
    )
    return read_shards(context.artefacts, f"{INCEPTION}/")


def _measure(
    context: StepContext, config: Config, table: pa.Table, scores: pa.Table, inception: pa.Table | None
) -> dict[str, object]:
    """Metrics of the images that have scores."""
    by_id = {row["image_id"]: row for row in scores.filter(pc.is_null(scores["reason"])).to_pylist()}
    table = table.filter(pc.is_in(table["image_id"], value_set=pa.array(list(by_id), pa.string())))
    ids = table["image_id"].to_pylist()
    rows = [by_id[name] for name in ids]
    size = config.diffusion.size_px
    images = ImageSet(
        image_ids=ids,
        emotions=table["emotion"].to_pylist(),
        pixels=np.stack(
            [to_square(decode_rgb(b, config.data.max_pixels), size) for b in table["image"].to_pylist()]
        ),
        probabilities=np.array([row["probabilities"] for row in rows], dtype=np.float32),
        scene_probability=np.array([_number(row["scene_probability"]) for row in rows], dtype=np.float32),
        object_probability=np.array([_number(row["object_probability"]) for row in rows], dtype=np.float32),
        features=np.array([row["clip_feature"] for row in rows], dtype=np.float32),
        inception=None if inception is None else _in_order(inception, ids),
    )
    real = read_features(context, "train")
    recogniser = load_recogniser(WEIGHTS / "recogniser.safetensors") if config.data.kind == "sketch" else None
    yardstick = Yardstick(
        real=feature_sums(real["clip_feature"], [str(e) for e in real["emotion"]]),
        recogniser=recogniser,
        clip=config.encoder.clip,
        pretrained=config.encoder.clip_pretrained,
        pairs=config.evaluation.pairs,
        seed=config.seed,
        inception=None if inception is None else _real_inception(context),
        weights_dir=config.evaluation.weights_dir,
    )
    return measure_images(images, yardstick)


def _in_order(features: pa.Table, ids: Sequence[str]) -> np.ndarray:
    """Inception features (M, 2048) of these images."""
    rows = {name: row for row, name in enumerate(features["image_id"].to_pylist())}
    columns = features["inception_feature"].combine_chunks().flatten().to_numpy().reshape(len(rows), -1)
    return np.asarray(columns[[rows[name] for name in ids]], dtype=np.float32)


def _real_inception(context: StepContext) -> dict[str, FeatureSums]:
    table = read_shards(context.artefacts_of("inception"), f"{INCEPTION}/")
    return feature_sums(_in_order(table, table["image_id"].to_pylist()), table["emotion"].to_pylist())


def _number(value: float | None) -> float:
    return np.nan if value is None else value
