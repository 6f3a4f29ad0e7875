"""Steps of the baselines of understanding: what a baseline fits, and its answers on the test split."""

# M test images, C classes

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from uniemo_ray.baselines.understanding.features import zero_shot
from uniemo_ray.baselines.understanding.linear_probe import Labels, Search, Values, search
from uniemo_ray.baselines.understanding.settings import BaselineSettings, build
from uniemo_ray.config import Config
from uniemo_ray.config.baselines import LanguageBaseline, LinearProbeConfig, TrainedBaseline
from uniemo_ray.data.readers import label_space
from uniemo_ray.distributed.ingest import SAMPLES_FOLDER
from uniemo_ray.distributed.scorers import on_a_worker
from uniemo_ray.distributed.shards.actors.language_models import LanguageModelActor
from uniemo_ray.distributed.shards.actors.understanding_baselines import (
    CLASSIFIER_FILE,
    FeatureClassifierActor,
    NetworkActor,
)
from uniemo_ray.distributed.shards.map_shards import map_shards
from uniemo_ray.distributed.training.train_stage import train_stage
from uniemo_ray.emotions import LabelSpace
from uniemo_ray.feedback.real_subset import RealSubset
from uniemo_ray.loop.step_pool import pool_of
from uniemo_ray.loop.steps.answers import TEST
from uniemo_ray.loop.steps.data import read_features, read_names
from uniemo_ray.loop.steps.evaluation import measure_accuracy, shown
from uniemo_ray.loop.steps.training import NET_FILE, TRAINING_COLUMNS
from uniemo_ray.models.clip import load_clip
from uniemo_ray.store.base import Store
from uniemo_ray.store.steps import StepContext, StepOutput
from uniemo_ray.training.loading.pieces import ShardRows, read_columns, shard_rows


def fit_zero_shot(context: StepContext, config: Config) -> StepOutput:
    """The classes' directions by the ensemble of prompts."""
    prompts = tuple(config.baselines.zero_shot.prompts)
    make = partial(
        make_zero_shot,
        clip=config.encoder.clip,
        pretrained=config.encoder.clip_pretrained,
        labels=label_space(config.data).labels,
        prompts=prompts,
    )
    context.artefacts.write_bytes(CLASSIFIER_FILE, on_a_worker(make, pool=pool_of(context, config)))
    return StepOutput(outputs={"prompts": len(prompts), "images": 0})


def make_zero_shot(
    *, clip: str, pretrained: str | None, labels: Sequence[str], prompts: Sequence[str]
) -> bytes:
    """The file of `zero_shot`."""
    torch.set_num_threads(1)
    return zero_shot(load_clip(clip, pretrained=pretrained), labels, prompts).to_bytes()


def fit_linear_probe(context: StepContext, config: Config, *, subset: RealSubset | None = None) -> StepOutput:
    """Logistic regression on the training split's features, as one task."""
    make = partial(
        find_probe,
        context.artefacts_of("features"),
        label_space(config.data),
        config.baselines.linear_probe,
        subset,
    )
    found, images = on_a_worker(make, pool=pool_of(context, config))
    context.artefacts.write_bytes(CLASSIFIER_FILE, found.probe.classifier().to_bytes())
    tried = {f"{l2:g}": accuracy for l2, accuracy in sorted(found.accuracies.items())}
    return StepOutput(outputs={"images": images}, metrics={"l2": found.probe.l2, "val_accuracies": tried})


def find_probe(
    features: Store, space: LabelSpace, config: LinearProbeConfig, subset: RealSubset | None
) -> tuple[Search, int]:
    """The best probe, and the number of training images.

    Args:
        features: what the step of that name left, which is read here.
        space: classes of the data set.
        config: of the search.
        subset: training images that count; None for all.
    """
    training = labelled(read_features(features, "train", subset), space)
    validation = labelled(read_features(features, "val"), space)
    found = search(training, validation, classes=len(space.labels), config=config)
    return found, len(training[1])


def labelled(columns: dict[str, np.ndarray], space: LabelSpace) -> tuple[Values, Labels]:
    """Features (M, E) and labels (M,) of a split."""
    labels = np.array([space.position(str(name)) for name in columns["emotion"]], dtype=np.int64)
    return columns["clip_feature"].astype(np.float64), labels


def answer_by_features(context: StepContext, config: Config, *, step: str) -> StepOutput:
    """Logits (M, C) of the classifier that a step has left, for every test image."""
    rows = map_shards(
        context.artefacts_of("features"),
        {TEST: TEST},
        target=context.artefacts,
        actor=partial(FeatureClassifierActor, context.artefacts_of(step).uri),
        plan_hash=context.fingerprint,
        pool=pool_of(context, config),
        as_tasks=True,
    )
    return judge_answers(context, config, rows=rows)


def train_network(
    context: StepContext, config: Config, *, baseline: TrainedBaseline, subset: RealSubset | None = None
) -> StepOutput:
    """Train a baseline's network from its start to its last epoch, by the engine that trains stages."""
    names = read_names(context)  # batches hold attributes, which no baseline looks at
    settings = BaselineSettings(
        stage="understanding",
        config=config,
        baseline=baseline,
        scenes=names.scenes,
        objects=names.objects,
    )
    data = training_rows(context, subset)
    result = train_stage(
        settings=settings,
        data=data,
        val=validation_rows(context, config),
        storage=context.artefacts.uri,
        name=context.name,
        build=build,
    )
    filesystem, _ = context.artefacts.arrow()
    with filesystem.open_input_file(result.weights) as file:
        context.artefacts.write_bytes(NET_FILE, file.read())
    context.artefacts.write_json("history.json", result.history)
    return StepOutput(
        outputs={"images": data.rows},
        metrics={"images_seen": result.images, "training_seconds": result.seconds},
    )


def training_rows(context: StepContext, subset: RealSubset | None) -> ShardRows:
    """The training split, or those of its images that count."""
    data = shard_rows([(context.artefacts_of("ingest"), f"{SAMPLES_FOLDER}/train")], columns=TRAINING_COLUMNS)
    if subset is None:
        return data
    ids = read_columns(data, ["image_id"])["image_id"].to_pylist()
    return replace(data, repeats=subset.mask(ids).astype(np.uint16))


def validation_rows(context: StepContext, config: Config) -> ShardRows | None:
    """The validation split, for the course of training; None if there are too few images for the workers."""
    images = context.inputs["ingest"].outputs["sizes"].get("val", 0)
    if images < config.resources.most_workers:
        return None
    return shard_rows([(context.artefacts_of("ingest"), f"{SAMPLES_FOLDER}/val")], columns=TRAINING_COLUMNS)


def answer_by_network(
    context: StepContext, config: Config, *, baseline: TrainedBaseline, step: str
) -> StepOutput:
    """Logits (M, C) of the network that a step has trained, for every test image."""
    weights = f"{context.artefacts_of(step).uri}/{NET_FILE}"
    settings = BaselineSettings(stage="understanding", config=config, baseline=baseline, weights=weights)
    rows = map_shards(
        context.artefacts_of("ingest"),
        {TEST: f"{SAMPLES_FOLDER}/{TEST}"},
        target=context.artefacts,
        actor=partial(NetworkActor, settings, config.data.max_pixels),
        plan_hash=context.fingerprint,
        pool=pool_of(context, config),
    )
    return judge_answers(context, config, rows=rows)


def answer_by_language_model(
    context: StepContext, config: Config, *, baseline: LanguageBaseline
) -> StepOutput:
    """Log-likelihoods (M, C) of the classes' names by a vision-language model, for every test image."""
    own = getattr(config.baselines, baseline)
    rows = map_shards(
        context.artefacts_of("ingest"),
        {TEST: f"{SAMPLES_FOLDER}/{TEST}"},
        target=context.artefacts,
        actor=partial(
            LanguageModelActor, own.model, own, label_space(config.data).labels, config.data.max_pixels
        ),
        plan_hash=context.fingerprint,
        pool=pool_of(context, config),
    )
    return judge_answers(context, config, rows=rows)


def judge_answers(context: StepContext, config: Config, *, rows: dict[str, int]) -> StepOutput:
    """The record of a step whose folder holds answers on the test split; `read_hits` reads them by image."""
    space = label_space(config.data)
    accuracy = measure_accuracy(context.artefacts, space)
    return StepOutput(
        outputs={"rows": rows},
        metrics={
            "accuracy": accuracy.top1,
            "standard_error": accuracy.standard_error,
            "images": accuracy.count,
            "understanding": shown(accuracy, space),
        },
    )
