"""Inception-v3 features of folders of images, by the two protocols of FID."""

from collections.abc import Collection, Sequence
from functools import partial
from typing import Final

import pyarrow as pa

from uniemo_ray.config import SPLITS, Config
from uniemo_ray.distributed.ingest import SAMPLES_FOLDER
from uniemo_ray.distributed.shards.actors.published import InceptionActor, PublishedProtocol, TrainProtocol
from uniemo_ray.distributed.shards.map_shards import map_shards
from uniemo_ray.loop.step_pool import pool_of
from uniemo_ray.loop.steps.feature_sums import folder_sums
from uniemo_ray.loop.steps.scored_images import ScoredImages
from uniemo_ray.metrics.frechet import FeatureSums
from uniemo_ray.metrics.generation import Sides
from uniemo_ray.metrics.inception import INCEPTION_FILE
from uniemo_ray.metrics.published import chosen_rows, fid_name
from uniemo_ray.metrics.weights import has_weights
from uniemo_ray.pools import Pool
from uniemo_ray.store.base import Store
from uniemo_ray.store.shards import entries_of
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
    context: StepContext, config: Config, source: Store, folder: str, *, images: ScoredImages
) -> None:
    """Leave the features of those generated images of a folder that the published FID takes."""
    rows = chosen_rows(images.ids, images.emotions)
    shards = images.shards_of(rows, entries_of(source, folder))
    _map(
        context,
        config,
        source,
        {PUBLISHED: folder},
        protocol=PublishedProtocol("generated"),
        chosen=images.ids_of(rows).to_pylist(),
        shards={entry.name for entry in shards},
    )


def train_sides(context: StepContext, config: Config, images: ScoredImages) -> Sides:
    """Sums of what `train_features` left, and of the real training images."""
    pool = pool_of(context, config)
    mine = _sums(pool, context.artefacts, TRAIN, left_out=images.left_out)
    return Sides("fid_train", mine, _sums(pool, context.artefacts_of(STEP), TRAIN))


def published_sides(context: StepContext, config: Config, labels: Sequence[str]) -> Sides:
    """Sums of what `published_features` left, and of all real images; the name says whether all are there."""
    pool = pool_of(context, config)
    mine = _sums(pool, context.artefacts, PUBLISHED)
    return Sides(fid_name(mine, labels), mine, _sums(pool, context.artefacts_of(STEP), PUBLISHED))


def _sums(
    pool: Pool, store: Store, folder: str, *, left_out: pa.Array | None = None
) -> dict[str, FeatureSums]:
    return folder_sums(pool, store, folder, column="inception_feature", left_out=left_out)


def _map(
    context: StepContext,
    config: Config,
    source: Store,
    folders: dict[str, str],
    *,
    protocol: TrainProtocol | PublishedProtocol,
    chosen: Sequence[str] | None = None,
    shards: Collection[str] | None = None,
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
        pool=pool_of(context, config),
        only=shards,
    )
