"""Steps of the baselines of generation that train, or take over what was trained."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from uniemo_ray.addresses import local_path
from uniemo_ray.baselines.generation import batches, emogen
from uniemo_ray.baselines.generation.mapping import EmotionClouds, read_clouds, read_mapper
from uniemo_ray.baselines.generation.stage import BaselineStage, build
from uniemo_ray.config import Config
from uniemo_ray.config.generation_baselines import EmoGenConfig, GenerationBaseline, TrainedBaseline
from uniemo_ray.data.readers import label_space
from uniemo_ray.distributed.training.train_stage import train_stage
from uniemo_ray.feedback.real_subset import RealSubset
from uniemo_ray.loop.step_pool import pool_of
from uniemo_ray.loop.steps.data import read_names
from uniemo_ray.loop.steps.feature_sums import folder_sums
from uniemo_ray.loop.steps.scorers import read_coefficients
from uniemo_ray.loop.steps.training import DENOISER_FILE, NET_FILE, keep_weights
from uniemo_ray.store.base import Store
from uniemo_ray.store.columns import iterate_columns
from uniemo_ray.store.fingerprint import file_sha256
from uniemo_ray.store.steps import StepContext, StepOutput
from uniemo_ray.training.loading.pieces import ShardRows, read_columns, shard_rows

logger = logging.getLogger(__name__)
CLOUDS, IMPORT, PRIOR = "clouds-emogen", "import-emogen", "prior-dreambooth"
"""Steps of one baseline alone."""
LABEL_COLUMNS = ["image_id", "emotion"]
CLOUDS_FILE, TEXT_FILE = "clouds.safetensors", "text_encoder.safetensors"


def step_of(verb: str, baseline: GenerationBaseline) -> str:
    """Name of a baseline's step, such as `generate-plain-prompt`."""
    return f"{verb}-{baseline.replace('_', '-')}"


def train(
    context: StepContext, config: Config, *, baseline: TrainedBaseline, subset: RealSubset | None = None
) -> StepOutput:
    """Train a baseline on the stored latents of the training split."""
    settings = _settings(context, config, baseline)
    result = train_stage(
        settings=settings,
        data=latent_rows(context, settings, subset=subset),
        storage=context.artefacts.uri,
        name=context.name,
        build=build,
    )
    keep_weights(context.artefacts, result.checkpoint, names=(NET_FILE, DENOISER_FILE, TEXT_FILE))
    context.artefacts.write_json("history.json", result.history)
    losses = {key: value for key, value in result.history[-1].items() if isinstance(value, float)}
    return StepOutput(
        outputs={"images": result.images, "left_out": result.left_out},
        metrics={"last": losses, "training_seconds": result.seconds},
    )


def _settings(context: StepContext, config: Config, baseline: TrainedBaseline) -> BaselineStage:
    if baseline == "emogen":
        names = read_names(context)
        coefficients = read_coefficients(context.artefacts_of("coefficients"))
        return BaselineStage(
            config=config,
            baseline=baseline,
            scenes=names.scenes,
            objects=names.objects,
            coefficients=coefficients,
        )
    prior = context.artefacts_of(PRIOR).uri if PRIOR in context.inputs else None
    return BaselineStage(config=config, baseline=baseline, prior=prior)


def latent_rows(context: StepContext, settings: BaselineStage, *, subset: RealSubset | None) -> ShardRows:
    """Training images with their latents: all of them, or those that count."""
    columns = emogen.COLUMNS if settings.baseline == "emogen" else batches.COLUMNS
    data = shard_rows([(context.artefacts_of("latents"), "train")], columns=columns)
    most, seed = settings.own.images_per_emotion, settings.config.seed
    if subset is None and most is None:
        return data
    counts = which_count(read_columns(data, LABEL_COLUMNS), subset=subset, most=most, seed=seed)
    logger.info("%s: an epoch shows %d images of %d", context.name, counts.sum(), len(counts))
    return replace(data, repeats=counts.astype(np.uint16))


def which_count(
    images: pa.Table, *, subset: RealSubset | None, most: int | None, seed: int
) -> NDArray[np.bool_]:
    """Which of M training images count (M,).

    Args:
        images: LABEL_COLUMNS.
        subset: The run's own choice; None for all.
        most: Images of each label; None for all.
        seed: Run seed.
    """
    ids, emotions = (images[name].to_pylist() for name in LABEL_COLUMNS)
    counts = np.ones(len(ids), dtype=bool) if subset is None else subset.mask(ids)
    if most is None:
        return counts
    return batches.first_of_each(ids, emotions, counts, most=most, seed=seed)


def clouds(context: StepContext, config: Config, *, subset: RealSubset | None = None) -> StepOutput:
    """The distribution of each label's image features, from which EmoGen draws, over its own images."""
    features, labels = context.artefacts_of("features"), label_space(config.data).labels
    most, seed, left_out = config.generation_baselines.emogen.images_per_emotion, config.seed, None
    if subset is not None or most is not None:
        images = pa.concat_tables(iterate_columns(features, "train/", LABEL_COLUMNS))
        counts = which_count(images, subset=subset, most=most, seed=seed)
        left_out = images["image_id"].filter(pa.array(~counts)).combine_chunks()
    sums = folder_sums(pool_of(context, config), features, "train", column="clip_feature", left_out=left_out)
    _write(context.artefacts, CLOUDS_FILE, EmotionClouds.of_sums(sums, labels).tensors())
    return StepOutput(outputs={"images": {label: sums[label].count for label in labels if label in sums}})


def import_emogen(context: StepContext, config: Config) -> StepOutput:
    """Take over a released mapping and the emotion space that it reads."""
    own, labels = config.generation_baselines.emogen, label_space(config.data).labels
    mapper = read_mapper(local_path(str(own.mapper)), emogen.shape_of(own))
    space = read_clouds(local_path(str(own.space)), labels, width=mapper.width)
    _write(context.artefacts, NET_FILE, mapper.state_dict())
    _write(context.artefacts, CLOUDS_FILE, space.tensors())
    return StepOutput(outputs={"width": mapper.width})


def released_files(own: EmoGenConfig) -> dict[str, str]:
    """Digests of a released mapping and its emotion space: other files are another result."""
    found: list[Path] = [local_path(str(own.mapper)), *sorted(local_path(str(own.space)).glob("*_v2.pt"))]
    return {path.name: file_sha256(path) for path in found}


def _write(store: Store, name: str, tensors: dict[str, Tensor]) -> None:
    store.write_bytes(name, save({key: value.contiguous() for key, value in tensors.items()}))
