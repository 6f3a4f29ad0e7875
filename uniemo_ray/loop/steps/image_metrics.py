"""All metrics of a set of images, generated or real. The driver holds numbers; pictures pass through it."""

# M images

import logging
from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from uniemo_ray.config import Config
from uniemo_ray.distributed.shards.actors.published import JudgeActor
from uniemo_ray.distributed.shards.map_shards import map_shards
from uniemo_ray.loop.steps.data import read_features
from uniemo_ray.loop.steps.inception import (
    PUBLISHED,
    TRAIN,
    has_inception,
    positions,
    published_features,
    read_train_features,
    real_sums,
    train_features,
)
from uniemo_ray.metrics.emotion_judge import JUDGE_FILE, EmotionJudge, has_emotion_judge
from uniemo_ray.metrics.generation import ImageSet, Yardstick, feature_sums, measure_images, needed_rows
from uniemo_ray.metrics.perceptual import has_alexnet
from uniemo_ray.metrics.pictures import PictureFile
from uniemo_ray.metrics.recogniser import load_recogniser
from uniemo_ray.metrics.resnet import has_judges
from uniemo_ray.metrics.sem_d import is_published_clip
from uniemo_ray.models.clip import load_clip
from uniemo_ray.shipped import WEIGHTS
from uniemo_ray.store.base import Store
from uniemo_ray.store.shards import iterate_shards, read_shards
from uniemo_ray.store.steps import StepContext

logger = logging.getLogger(__name__)
JUDGES = "judges"
"""Folder of what both ResNet-50 say."""


def measured(config: Config) -> dict[str, list[str]]:
    """The names under which a measuring step gives its metrics; other names make it run again.

    So a file that is added to `evaluation.weights_dir` later adds its own metrics, and what was measured
    under names of an earlier release is measured again. FID is not among them, as it has a step of its own,
    and neither is what follows from the settings that the step reads.
    """
    folder = config.evaluation.weights_dir
    there = {
        ("emo_a_clip", "sem_d_clip", "sem_d_l14"): True,
        ("lpips", "lpips_alex"): has_alexnet(folder),
        ("sem_c",): has_judges(folder),
        ("emo_a",): has_emotion_judge(folder),
    }
    return {"metrics": [name for names, is_there in there.items() if is_there for name in names]}


def measure_set(
    context: StepContext,
    config: Config,
    source: Store,
    folder: str,
    *,
    scores: pa.Table,
    is_generated: bool,
) -> dict[str, object]:
    """Metrics of the images that have scores.

    Args:
        context: of the measuring step.
        config: of the run.
        source: store of the images.
        folder: of their shards.
        scores: SCORES rows, one for each image; those with a reason do not count.
        is_generated: whether they are measured by the published protocol as well. It is one for generated
            images, and its FID compares with all real ones.

    Raises:
        ValueError: no image has scores.
    """
    scores = scores.filter(pc.is_null(scores["reason"]))
    if not scores.num_rows:
        raise ValueError(f"no image in {source.uri}/{folder} has scores: there is nothing to measure")
    ids, emotions = scores["image_id"].to_pylist(), scores["emotion"].to_pylist()
    published = None
    if has_inception(config):
        train_features(context, config, source, folder)
        if is_generated:
            published = published_features(context, config, source, folder, ids=ids, emotions=emotions)
    judged = _judge(context, config, source, folder, is_generated=is_generated)
    yardstick = _yardstick(context, config)
    with PictureFile(size_px=config.diffusion.size_px, max_pixels=config.data.max_pixels) as pictures:
        rows = needed_rows(ids, emotions, yardstick, is_generated=is_generated)
        _fill(pictures, source, folder, ids=ids, rows=rows.tolist())
        images = ImageSet(
            image_ids=ids,
            emotions=emotions,
            pictures=pictures,
            is_generated=is_generated,
            probabilities=_rows(scores, "probabilities"),
            scene_probability=_numbers(scores, "scene_probability"),
            object_probability=_numbers(scores, "object_probability"),
            features=_rows(scores, "clip_feature"),
            inception=read_train_features(context, ids) if has_inception(config) else None,
            published=published,
            judged=None if judged is None else _judged_in_order(judged, ids),
        )
        return measure_images(images, yardstick).to_dict()


def _judge(
    context: StepContext, config: Config, source: Store, folder: str, *, is_generated: bool
) -> pa.Table | None:
    """What both ResNet-50 say of a folder's images, or None when the user has no weights for them."""
    if not has_judges(config.evaluation.weights_dir):
        return None
    actor = partial(
        JudgeActor,
        weights_dir=str(config.evaluation.weights_dir),
        source="generated" if is_generated else "real",
        max_pixels=config.data.max_pixels,
    )
    map_shards(
        source,
        {JUDGES: folder},
        target=context.artefacts,
        actor=actor,
        plan_hash=context.fingerprint,
        resources=config.resources,
    )
    return read_shards(context.artefacts, f"{JUDGES}/")


def _yardstick(context: StepContext, config: Config) -> Yardstick:
    real = read_features(context, "train")
    recogniser = load_recogniser(WEIGHTS / "recogniser.safetensors") if config.data.kind == "sketch" else None
    clip, pretrained = config.encoder.clip, config.encoder.clip_pretrained
    weights_dir = config.evaluation.weights_dir
    is_published = is_published_clip(clip, pretrained=pretrained)
    if has_emotion_judge(weights_dir) and not is_published:
        logger.warning("%s judges features of OpenAI's ViT-L/14, not of %s: no emo_a", JUDGE_FILE, clip)
    return Yardstick(
        real=feature_sums(real["clip_feature"], [str(e) for e in real["emotion"]]),
        recogniser=recogniser,
        pairs=config.evaluation.pairs,
        seed=config.seed,
        published_clip=partial(load_clip, clip, pretrained=pretrained) if is_published else None,
        judge=EmotionJudge(weights_dir) if has_emotion_judge(weights_dir) else None,
        inception=real_sums(context, TRAIN) if has_inception(config) else None,
        published=real_sums(context, PUBLISHED) if has_inception(config) else None,
        weights_dir=weights_dir,
    )


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


def _judged_in_order(table: pa.Table, ids: Sequence[str]) -> NDArray[np.float64]:
    """Probabilities (M, 2) of these images."""
    columns = [table[name].to_numpy() for name in ("scene_probability", "object_probability")]
    return np.stack(columns, axis=1)[positions(table, ids)]
