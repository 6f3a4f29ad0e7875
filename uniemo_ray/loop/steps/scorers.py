"""Steps between the stages: the scorers on frozen features, and the correlation coefficients."""

# M training images, E CLIP joint width

import io
import logging
from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from uniemo_ray.config import Config
from uniemo_ray.data.readers import label_space
from uniemo_ray.data.samples import AttributeNames
from uniemo_ray.data.sketch_rule import sketch_rule
from uniemo_ray.distributed.datasets import as_dataset, only
from uniemo_ray.distributed.scorers import on_a_worker, with_probabilities
from uniemo_ray.distributed.shards.actors.clip import load_heads
from uniemo_ray.distributed.statistics import compute_coefficients
from uniemo_ray.emotions import LabelSpace
from uniemo_ray.feedback.real_subset import RealSubset
from uniemo_ray.inference.heads import NameBank, ScorerData, ScorerHeads, train_scorers
from uniemo_ray.loop.step_pool import pool_of
from uniemo_ray.loop.steps.data import read_features, read_names, real_ids
from uniemo_ray.models.clip import embed_names, load_clip
from uniemo_ray.statistics.coefficients import coefficients_by_key, mean_absolute_error
from uniemo_ray.store.base import Store
from uniemo_ray.store.steps import StepContext, StepOutput

logger = logging.getLogger(__name__)
COEFFICIENTS_FILE = "coefficients.parquet"


def scorers(context: StepContext, config: Config, *, subset: RealSubset | None = None) -> StepOutput:
    """Train the section-2 emotion classifier and the scene and object heads, as one Ray task."""
    features = context.artefacts_of("features")
    fit = partial(fit_scorers, features, config, read_names(context), subset)
    blob, accuracies = on_a_worker(fit, pool=pool_of(context, config))
    context.artefacts.write_bytes("scorers.safetensors", blob)
    return StepOutput(metrics={f"test_{name}": value for name, value in accuracies.items()})


def fit_scorers(
    features: Store, config: Config, names: AttributeNames, subset: RealSubset | None = None
) -> tuple[bytes, dict[str, float]]:
    """Train the heads on all features of the training split; returns their file and their test accuracies.

    Args:
        features: what the step of that name left, which is read here.
        config: names the frozen CLIP, the scorers' settings and the seed.
        names: attribute base of the scene and object heads.
        subset: training images that count; None for all.
    """
    torch.set_num_threads(1)
    space = label_space(config.data)
    clip = load_clip(config.encoder.clip, pretrained=config.encoder.clip_pretrained)
    heads = train_scorers(
        scorer_data(read_features(features, "train", subset), *names, space),
        scenes=NameBank(tuple(names.scenes), embed_names(clip, names.scenes)),
        objects=NameBank(tuple(names.objects), embed_names(clip, names.objects)),
        config=config.scorers,
        logit_scale=float(clip.model.logit_scale.exp()),
        seed=config.seed,
        validation=scorer_data(read_features(features, "val"), *names, space),
        labels=space.labels,
    )
    return heads.save_bytes(), head_accuracies(
        heads, scorer_data(read_features(features, "test"), *names, space)
    )


def scorer_data(
    columns: dict[str, np.ndarray], scenes: Sequence[str], objects: Sequence[str], space: LabelSpace
) -> ScorerData:
    """Features and multi-hot labels of a split."""
    scene = np.zeros((len(columns["emotion"]), len(scenes)), dtype=np.float32)
    object_ = np.zeros((len(columns["emotion"]), len(objects)), dtype=np.float32)
    at_scene, at_object = ({name: i for i, name in enumerate(names)} for names in (scenes, objects))
    for row, (one, several) in enumerate(zip(columns["scene"], columns["objects"], strict=True)):
        if one is not None:
            scene[row, at_scene[one]] = 1
        for name in several if several is not None else ():
            object_[row, at_object[name]] = 1
    return ScorerData(
        torch.from_numpy(columns["clip_feature"]).float(),
        torch.tensor([space.position(str(e)) for e in columns["emotion"]]),
        torch.from_numpy(scene),
        torch.from_numpy(object_),
    )


@torch.no_grad()
def head_accuracies(heads: ScorerHeads, data: ScorerData) -> dict[str, float]:
    """Top-1 accuracy of each head on labelled images."""
    labels = torch.nn.functional.one_hot(data.emotion, len(heads.labels))
    found = {"emotion": _hits(heads.emotion(data.features), labels)}
    for kind, head in (("scene", heads.scene), ("object", heads.object)):
        if head is not None:
            found[kind] = _hits(head(data.features), getattr(data, kind))
    return {f"{kind}_accuracy": float(hits.float().mean()) for kind, hits in found.items() if len(hits)}


def _hits(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    has_label = targets.sum(dim=1) > 0
    chosen = logits.argmax(dim=1, keepdim=True)
    return targets.gather(1, chosen)[has_label, 0] > 0


def coefficients(context: StepContext, config: Config, *, subset: RealSubset | None = None) -> StepOutput:
    """Alpha (eq. 5) of every attribute over the training split, by a mergeable aggregation."""
    features = context.artefacts_of("features")
    pool = pool_of(context, config)
    counting = only(as_dataset(features, "train", pool=pool), real_ids(features, subset), pool=pool)
    rows = with_probabilities(counting, load_heads(context.artefacts_of("scorers")), pool=pool)
    table = compute_coefficients(rows, space=label_space(config.data), pool=pool)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    context.artefacts.write_bytes(COEFFICIENTS_FILE, sink.getvalue())
    rule = sketch_rule(config.data)
    error = None if rule is None else mean_absolute_error(table, rule.alpha())
    return StepOutput(outputs={"attributes": table.num_rows}, metrics={"mean_absolute_error": error})


def coefficient_table(store: Store) -> pa.Table:
    """What `coefficients` left in its folder."""
    return pq.read_table(io.BytesIO(store.read_bytes(COEFFICIENTS_FILE)))


def read_coefficients(store: Store) -> dict[str, dict[str, list[float]]]:
    """Kind to attribute to its C values, plain numbers."""
    found: dict[str, dict[str, list[float]]] = {"scene": {}, "object": {}}
    for (kind, name), alpha in coefficients_by_key(coefficient_table(store)).items():
        found[kind][name] = alpha.tolist()
    return found
