"""The scorers of section 2 on a cluster: trained in a task, applied to a data set."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import ray
import torch
from ray.data import Dataset

from uniemo_ray.distributed.datasets import selectors_of
from uniemo_ray.distributed.waiting import light, waiting_shown
from uniemo_ray.inference.heads import ScorerHeads
from uniemo_ray.pools import Pool
from uniemo_ray.store.steps import current_step

R = TypeVar("R")


def on_a_worker(work: Callable[[], R], *, pool: Pool) -> R:
    """Do this in a task of one CPU on a machine of the pool, which reads what it needs itself."""
    task: Any = ray.remote(_call).options(num_cpus=1, **pool.selectors())
    with waiting_shown(current_step(), light(pool)):
        result: R = ray.get(task.remote(work))
    return result


def _call(work: Callable[[], R]) -> R:
    return work()


def with_probabilities(rows: Dataset, heads: ScorerHeads, *, pool: Pool | None = None) -> Dataset:
    """Rows with `scene`, `objects` and the emotion classifier's `probabilities` (C,).

    Args:
        rows: Rows with `clip_feature` (E,), `scene` and `objects`.
        heads: The trained scorers.
        pool: The machines that do it.
    """
    judged: Dataset = rows.map_batches(
        _add_probabilities,  # type: ignore[arg-type]  # Ray declares no further arguments
        fn_kwargs={"heads": ray.put(heads)},
        batch_size=1024,
        batch_format="pyarrow",
        **selectors_of(pool),
    )
    return judged


@torch.no_grad()
def _add_probabilities(table: pa.Table, heads: "ray.ObjectRef[ScorerHeads]") -> pa.Table:
    features = torch.from_numpy(np.stack(table["clip_feature"].to_numpy(zero_copy_only=False)))
    probabilities = ray.get(heads).emotion(features).softmax(dim=1).numpy()
    return table.select(["scene", "objects"]).append_column("probabilities", pa.array(probabilities.tolist()))
