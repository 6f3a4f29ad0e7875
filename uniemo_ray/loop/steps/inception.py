"""Inception-v3 features of folders of images, by the two protocols of FID."""

# M images

from collections.abc import Sequence
from functools import partial
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from uniemo_ray.config import SPLITS, Config
from uniemo_ray.distributed.ingest import SAMPLES_FOLDER
from uniemo_ray.distributed.shards.actors.published import InceptionActor, PublishedProtocol, TrainProtocol
from uniemo_ray.distributed.shards.map_shards import map_shards
from uniemo_ray.metrics.frechet import FeatureSums
from uniemo_ray.metrics.generation import PublishedFeatures
from uniemo_ray.metrics.inception import INCEPTION_FILE
from uniemo_ray.metrics.published import chosen_rows
from uniemo_ray.metrics.weights import has_weights
from uniemo_ray.store.base import Store
from uniemo_ray.store.shards import iterate_shards, read_shards
from uniemo_ray.store.steps import StepContext, StepOutput

STEP = "inception"
"""Step that leaves the features of real images."""
TRAIN: Final = "inception/train"
PUBLISHED: Final = "inception/published"
"""Folders of the features for `fid_train` and for `fid`."""


def has_inception(config: Config) -> bool:
    """Whether the user has the weights."""
    return has_weights(config.evaluation.weights_dir, INCEPTION_FILE)


def inception_step(context: StepContext, config: Config) -> StepOutput:
    """Features of real images: for `fid_train` of the training split, for `fid` of every split."""
    source = context.artefacts_of("ingest")
    train_features(context, config, source, f"{SAMPLES_FOLDER}/train")
    folders = {f"{PUBLISHED}/{split}": f"{SAMPLES_FOLDER}/{split}" for split in SPLITS}
    _map(context, config, source, folders, protocol=PublishedProtocol("real"))
    return StepOutput()


def train_features(context: StepContext, config: Config, source: Store, folder: str) -> None:
    """Leave the features of a folder's images by our protocol in the step's folder."""
    _map(context, config, source, {TRAIN: folder}, protocol=TrainProtocol(config.diffusion.size_px))


def published_features(
    context: StepContext,
    config: Config,
    source: Store,
    folder: str,
    *,
    ids: Sequence[str],
    emotions: Sequence[str],
) -> PublishedFeatures:
    """Features of those generated images of a folder that the published FID takes.

    Args:
        context: of the measuring step.
        config: of the run.
        source: store of the images.
        folder: of their shards.
        ids: of the M images that may count.
        emotions: of these.
    """
    rows = chosen_rows(ids, emotions)
    chosen = [ids[row] for row in rows]
    _map(context, config, source, {PUBLISHED: folder}, protocol=PublishedProtocol("generated"), chosen=chosen)
    table = read_shards(context.artefacts, f"{PUBLISHED}/")
    return PublishedFeatures(in_order(table, chosen), [emotions[row] for row in rows])


def real_sums(
    context: StepContext, folder: Literal["inception/train", "inception/published"]
) -> dict[str, FeatureSums]:
    """Sums by emotion of the real images' features, one shard in memory at a time."""
    found: dict[str, FeatureSums] = {}
    for table in iterate_shards(context.artefacts_of(STEP), f"{folder}/"):
        features, labels = feature_rows(table), np.asarray(table["emotion"].to_pylist())
        for label in np.unique(labels):
            part = FeatureSums.of(features[labels == label])
            found[str(label)] = found[str(label)].merge(part) if str(label) in found else part
    return found


def read_train_features(context: StepContext, ids: Sequence[str]) -> NDArray[np.float32]:
    """What `train_features` left of these images: (M, 2048)."""
    return in_order(read_shards(context.artefacts, f"{TRAIN}/"), ids)


def in_order(table: pa.Table, ids: Sequence[str]) -> NDArray[np.float32]:
    """Features (M, 2048) of these images."""
    return feature_rows(table)[positions(table, ids)]


def positions(table: pa.Table, ids: Sequence[str]) -> list[int]:
    """Rows of these images."""
    return pc.index_in(pa.array(ids, pa.string()), value_set=table["image_id"].combine_chunks()).to_pylist()  # type: ignore[no-any-return]


def feature_rows(table: pa.Table) -> NDArray[np.float32]:
    """Features of all rows."""
    flat = table["inception_feature"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat.reshape(table.num_rows, -1), dtype=np.float32)


def _map(
    context: StepContext,
    config: Config,
    source: Store,
    folders: dict[str, str],
    *,
    protocol: TrainProtocol | PublishedProtocol,
    chosen: Sequence[str] | None = None,
) -> None:
    map_shards(
        source,
        folders,
        target=context.artefacts,
        actor=partial(
            InceptionActor,
            weights_dir=str(config.evaluation.weights_dir),
            protocol=protocol,
            max_pixels=config.data.max_pixels,
            chosen=chosen,
        ),
        plan_hash=context.fingerprint,
        resources=config.resources,
    )
