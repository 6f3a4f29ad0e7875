"""Sums of features for Fréchet distances, which tasks make of committed shards."""

import pyarrow as pa

from uniemo_ray.config import Config
from uniemo_ray.distributed.tasks import total
from uniemo_ray.loop.step_pool import pool_of
from uniemo_ray.metrics.frechet import FeatureSums, add_sums
from uniemo_ray.metrics.shard_sums import ROWS_PER_TASK, SumFeatures, pieces
from uniemo_ray.pools import Pool
from uniemo_ray.store.base import Store
from uniemo_ray.store.shards import entries_of
from uniemo_ray.store.steps import StepContext

RESULTS_AT_ONCE = 8
"""Tasks that run or have a result in the object store: eight emotions of Inception-v3 take 270 MB."""


def folder_sums(
    pool: Pool, store: Store, folder: str, *, column: str, left_out: pa.Array | None = None
) -> dict[str, FeatureSums]:
    """Sums by emotion of a folder's features, without images that are left out.

    Raises:
        FileNotFoundError: nothing is committed there.
    """
    found = total(
        SumFeatures(store, column, left_out),
        pieces(entries_of(store, folder), rows=ROWS_PER_TASK),
        add=add_sums,
        pool=pool,
        what="measurement",
        at_once=RESULTS_AT_ONCE,
    )
    return dict(sorted(found.items()))


def clip_sums(context: StepContext, config: Config) -> dict[str, FeatureSums]:
    """Sums by emotion of the real training images' CLIP features."""
    return folder_sums(
        pool_of(context, config), context.artefacts_of("features"), "train", column="clip_feature"
    )
