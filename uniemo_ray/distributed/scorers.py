"""The scorers of section 2 on a cluster: trained in a task, applied to a data set."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np
import pyarrow as pa
import ray
import torch
from ray.data import Dataset

from uniemo_ray.inference.heads import ScorerHeads

P = ParamSpec("P")
R = TypeVar("R")


def on_a_worker(work: Callable[P, R], *args: P.args, **options: P.kwargs) -> R:
    """Do this in a task of one CPU, which reads what it needs itself."""
    task: Any = ray.remote(num_cpus=1)(work)
    result: R = ray.get(task.remote(*args, **options))
    return result


def with_probabilities(rows: Dataset, heads: ScorerHeads) -> Dataset:
    """Rows with `scene`, `objects` and the emotion classifier's `probabilities` (C,).

    Args:
        rows: Rows with `clip_feature` (E,), `scene` and `objects`.
        heads: The trained scorers.
    """
    judged: Dataset = rows.map_batches(
        _add_probabilities,  # type: ignore[arg-type]  # Ray declares no further arguments
        fn_kwargs={"heads": ray.put(heads)},
        batch_size=1024,
        batch_format="pyarrow",
    )
    return judged


@torch.no_grad()
def _add_probabilities(table: pa.Table, heads: "ray.ObjectRef[ScorerHeads]") -> pa.Table:
    features = torch.from_numpy(np.stack(table["clip_feature"].to_numpy(zero_copy_only=False)))
    probabilities = ray.get(heads).emotion(features).softmax(dim=1).numpy()
    return table.select(["scene", "objects"]).append_column("probabilities", pa.array(probabilities.tolist()))
