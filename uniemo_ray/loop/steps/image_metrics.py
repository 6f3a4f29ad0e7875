"""All metrics of a set of images, generated or real. The driver holds numbers; pictures pass through it."""

# M images

from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from uniemo_ray.config import Config
from uniemo_ray.distributed.shards.actors.published import InceptionActor, JudgeActor
from uniemo_ray.distributed.shards.map_shards import map_shards
from uniemo_ray.distributed.shards.mapper import ActorFactory
from uniemo_ray.loop.steps.data import read_features
from uniemo_ray.metrics.frechet import FeatureSums
from uniemo_ray.metrics.generation import ImageSet, Yardstick, feature_sums, measure_images, needed_rows
from uniemo_ray.metrics.inception import INCEPTION_FILE
from uniemo_ray.metrics.pictures import PictureFile
from uniemo_ray.metrics.recogniser import load_recogniser
from uniemo_ray.metrics.resnet import has_judges
from uniemo_ray.metrics.weights import has_weights
from uniemo_ray.shipped import WEIGHTS
from uniemo_ray.store.base import Store
from uniemo_ray.store.shards import iterate_shards, read_shards
from uniemo_ray.store.steps import StepContext

INCEPTION, JUDGES = "inception", "judges"
"""Folders of what the published networks say."""


def measure_set(
    context: StepContext, config: Config, source: Store, folder: str, *, scores: pa.Table
) -> dict[str, object]:
    """Metrics of the images that have scores.

    Args:
        context: of the measuring step.
        config: of the run.
        source: store of the images.
        folder: of their shards.
        scores: SCORES rows, one for each image; those with a reason do not count.

    Raises:
        ValueError: no image has scores.
    """
    scores = scores.filter(pc.is_null(scores["reason"]))
    if not scores.num_rows:
        raise ValueError(f"no image in {source.uri}/{folder} has scores: there is nothing to measure")
    ids, emotions = scores["image_id"].to_pylist(), scores["emotion"].to_pylist()
    inception = inception_features(context, config, source, folder)
    judged = _judge(context, config, source, folder)
    yardstick = _yardstick(context, config, with_inception=inception is not None)
    with PictureFile(size_px=config.diffusion.size_px, max_pixels=config.data.max_pixels) as pictures:
        _fill(pictures, source, folder, ids=ids, rows=needed_rows(ids, emotions, yardstick).tolist())
        images = ImageSet(
            image_ids=ids,
            emotions=emotions,
            pictures=pictures,
            probabilities=_rows(scores, "probabilities"),
            scene_probability=_numbers(scores, "scene_probability"),
            object_probability=_numbers(scores, "object_probability"),
            features=_rows(scores, "clip_feature"),
            inception=None if inception is None else _in_order(inception, ids),
            judged=None if judged is None else _judged_in_order(judged, ids),
        )
        return measure_images(images, yardstick).to_dict()


def inception_features(context: StepContext, config: Config, source: Store, folder: str) -> pa.Table | None:
    """Features of a folder's images, or None when the user has no weights for them."""
    if not has_weights(config.evaluation.weights_dir, INCEPTION_FILE):
        return None
    actor = partial(
        InceptionActor,
        weights_dir=str(config.evaluation.weights_dir),
        size_px=config.diffusion.size_px,
        max_pixels=config.data.max_pixels,
    )
    return _map(context, config, source, folder, into=INCEPTION, actor=actor)


def _judge(context: StepContext, config: Config, source: Store, folder: str) -> pa.Table | None:
    """What both ResNet-50 say of a folder's images, or None when the user has no weights for them."""
    if not has_judges(config.evaluation.weights_dir):
        return None
    actor = partial(
        JudgeActor,
        weights_dir=str(config.evaluation.weights_dir),
        size_px=config.diffusion.size_px,
        max_pixels=config.data.max_pixels,
    )
    return _map(context, config, source, folder, into=JUDGES, actor=actor)


def _map(
    context: StepContext,
    config: Config,
    source: Store,
    folder: str,
    *,
    into: str,
    actor: ActorFactory,
) -> pa.Table:
    map_shards(
        source,
        {into: folder},
        target=context.artefacts,
        actor=actor,
        plan_hash=context.fingerprint,
        resources=config.resources,
    )
    return read_shards(context.artefacts, f"{into}/")


def _yardstick(context: StepContext, config: Config, *, with_inception: bool) -> Yardstick:
    real = read_features(context, "train")
    recogniser = load_recogniser(WEIGHTS / "recogniser.safetensors") if config.data.kind == "sketch" else None
    return Yardstick(
        real=feature_sums(real["clip_feature"], [str(e) for e in real["emotion"]]),
        recogniser=recogniser,
        clip=config.encoder.clip,
        pretrained=config.encoder.clip_pretrained,
        pairs=config.evaluation.pairs,
        seed=config.seed,
        inception=_real_inception(context) if with_inception else None,
        weights_dir=config.evaluation.weights_dir,
    )


def _real_inception(context: StepContext) -> dict[str, FeatureSums]:
    table = read_shards(context.artefacts_of("inception"), f"{INCEPTION}/")
    return feature_sums(_in_order(table, table["image_id"].to_pylist()), table["emotion"].to_pylist())


def _fill(
    pictures: PictureFile, source: Store, folder: str, *, ids: Sequence[str], rows: Sequence[int]
) -> None:
    """Copy the pictures of these rows of `ids`, one shard at a time; without rows no shard is read."""
    wanted = {ids[row]: row for row in rows}
    if not wanted:
        return
    names = pa.array(list(wanted), pa.string())
    for table in iterate_shards(source, f"{folder}/", columns=["image_id", "image"]):
        for batch in table.filter(pc.is_in(table["image_id"], value_set=names)).to_batches():
            for name, data in zip(batch["image_id"], batch["image"], strict=True):
                pictures.add(wanted[name.as_py()], data.as_py())


def _rows(table: pa.Table, name: str) -> NDArray[np.float32]:
    """A column of lists of K numbers as (M, K)."""
    flat = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat.reshape(table.num_rows, -1), dtype=np.float32)


def _numbers(table: pa.Table, name: str) -> NDArray[np.float32]:
    """A column of numbers as (M,), null as NaN."""
    return np.asarray(table[name].to_numpy(zero_copy_only=False), dtype=np.float32)


def _positions(table: pa.Table, ids: Sequence[str]) -> list[int]:
    rows = {name: row for row, name in enumerate(table["image_id"].to_pylist())}
    return [rows[name] for name in ids]


def _in_order(features: pa.Table, ids: Sequence[str]) -> NDArray[np.float32]:
    """Inception features (M, 2048) of these images."""
    return _rows(features, "inception_feature")[_positions(features, ids)]


def _judged_in_order(table: pa.Table, ids: Sequence[str]) -> NDArray[np.float64]:
    """Probabilities (M, 2) of these images."""
    columns = [table[name].to_numpy() for name in ("scene_probability", "object_probability")]
    return np.stack(columns, axis=1)[_positions(table, ids)]
