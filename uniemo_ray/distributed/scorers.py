"""The scorers of section 2 on a cluster: trained in a task, applied to a data set."""

import numpy as np
import pyarrow as pa
import ray
import torch
from ray.data import Dataset

from uniemo_ray.config import Config
from uniemo_ray.data.readers import label_space
from uniemo_ray.data.samples import AttributeNames
from uniemo_ray.inference.heads import NameBank, ScorerData, ScorerHeads, train_scorers
from uniemo_ray.models.clip import embed_names, load_clip


def train_on_a_worker(train: ScorerData, val: ScorerData, config: Config, names: AttributeNames) -> bytes:
    """Train the scorers in a task of one CPU.

    Args:
        train: Features and labels of the training split.
        val: Features and labels of the validation split.
        config: Names the frozen CLIP, the scorers' settings and the seed.
        names: Attribute base of the scene and object heads.

    Returns:
        The scorers' file.
    """
    task = ray.remote(num_cpus=1)(_fit)
    blob: bytes = ray.get(task.remote(train, val, config, names))
    return blob


def _fit(train: ScorerData, val: ScorerData, config: Config, names: AttributeNames) -> bytes:
    torch.set_num_threads(1)
    clip = load_clip(config.encoder.clip, pretrained=config.encoder.clip_pretrained)
    heads = train_scorers(
        train,
        scenes=NameBank(tuple(names.scenes), embed_names(clip, names.scenes)),
        objects=NameBank(tuple(names.objects), embed_names(clip, names.objects)),
        config=config.scorers,
        logit_scale=float(clip.model.logit_scale.exp()),
        seed=config.seed,
        validation=val,
        labels=label_space(config.data).labels,
    )
    return heads.save_bytes()


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
