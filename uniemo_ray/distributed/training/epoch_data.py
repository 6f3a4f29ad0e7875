"""Data sets of a training stage: kept in memory when they fit, and what an interrupted epoch has left."""

import logging

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.data.dataset import MaterializedDataset

from uniemo_ray.config import ResourceConfig
from uniemo_ray.distributed.datasets import ROWS_PER_BLOCK
from uniemo_ray.seeds import hash_seed, id_hashes

logger = logging.getLogger(__name__)

RESIDENT_SHARE = 0.3
"""Share of the cluster's object store up to which a data set stays in memory for all epochs."""


def fits_in_memory(dataset: "ray.data.Dataset") -> bool:
    """Whether a data set may stay in the object store, so that an epoch needs no CPU beside the workers."""
    limit = RESIDENT_SHARE * ray.cluster_resources().get("object_store_memory", 0)
    return bool(dataset.size_bytes() <= limit)


def check_spare_cpu(resources: ResourceConfig) -> None:
    """A data set that is read anew each epoch needs a CPU that no worker holds, or training waits for ever.

    Raises:
        ValueError: there is none.
    """
    total = ray.cluster_resources().get("CPU", 0)
    taken = resources.most_workers * resources.cpus_per_worker
    if total - taken < 1:
        raise ValueError(
            f"the training images do not fit in the object store and the {resources.most_workers} workers "
            f"take {taken} of {total:g} CPUs, so none is left to read them: lower resources.workers or "
            f"resources.cpus_per_worker, or add a node"
        )


def keep_resident(dataset: "ray.data.Dataset") -> "ray.data.Dataset":
    """Read once into the object store, in blocks small enough to be shuffled among the workers."""
    if isinstance(dataset, MaterializedDataset) and dataset.count() <= dataset.num_blocks() * ROWS_PER_BLOCK:
        return dataset
    resident: ray.data.Dataset = dataset.repartition(target_num_rows_per_block=ROWS_PER_BLOCK).materialize()
    return resident


def reorder(dataset: "ray.data.Dataset", *, seed: int) -> "ray.data.Dataset":
    """Blocks in another order in each epoch."""
    order = ray.data.RandomSeedConfig(seed=hash_seed(seed, "blocks") % 2**31, reseed_after_execution=True)
    ordered: ray.data.Dataset = dataset.randomize_block_order(seed=order)
    return ordered


def unseen(dataset: "ray.data.Dataset", seen: np.ndarray) -> "ray.data.Dataset":
    """The rows whose image id is not among the hashes `seen`, uint64 (n,)."""
    kept: ray.data.Dataset = dataset.map_batches(
        _drop_seen,  # type: ignore[arg-type]  # Ray declares no further arguments
        batch_format="pyarrow",
        batch_size=ROWS_PER_BLOCK,
        fn_kwargs={"seen": seen},
    )
    return kept


def _drop_seen(table: pa.Table, seen: np.ndarray) -> pa.Table:
    is_seen = np.isin(id_hashes(table["image_id"].to_pylist()), seen)
    return table.filter(pa.array(~is_seen))
