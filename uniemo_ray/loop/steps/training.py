"""Steps that train: stage 1 and stage 2 of a round, and what the trained network says of the images."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
from pyarrow.fs import FileType

from uniemo_ray.config import Config
from uniemo_ray.distributed.datasets import as_dataset, only
from uniemo_ray.distributed.ingest import SAMPLES_FOLDER
from uniemo_ray.distributed.shards.actors.encoder import EncoderActor
from uniemo_ray.distributed.shards.map_shards import map_shards
from uniemo_ray.distributed.statistics import SPACE_COLUMNS, compute_space
from uniemo_ray.distributed.training.train_stage import train_stage
from uniemo_ray.emotions import LabelSpace
from uniemo_ray.feedback.real_subset import RealSubset
from uniemo_ray.loop.step_pool import pool_of
from uniemo_ray.loop.steps.data import read_names, real_ids
from uniemo_ray.loop.steps.scorers import read_coefficients
from uniemo_ray.pools import Pool
from uniemo_ray.statistics.emotion_space import EmotionSpace
from uniemo_ray.store.base import Store
from uniemo_ray.store.steps import StepContext, StepOutput
from uniemo_ray.training.loading.pieces import ShardRows, read_columns, shard_rows
from uniemo_ray.training.sampling import plan_repeats
from uniemo_ray.training.stage_settings import StageName, StageSettings

logger = logging.getLogger(__name__)
LABELS = ["image_id", "emotion", "scene"]
TRAINING_COLUMNS = ["image_id", "image", "emotion", "scene", "objects"]
LATENT = "latent"
NET_FILE, DENOISER_FILE = "net.safetensors", "denoiser.safetensors"


def understanding(
    context: StepContext, config: Config, *, round_: int, subset: RealSubset | None = None
) -> StepOutput:
    """Stage 1 of a round: from CLIP's weights, later from the round before."""
    return _train(context, config, stage="understanding", round_=round_, subset=subset)


def joint(
    context: StepContext, config: Config, *, round_: int, subset: RealSubset | None = None
) -> StepOutput:
    """Stage 2 of a round, from its stage 1."""
    return _train(context, config, stage="joint", round_=round_, subset=subset)


def training_settings(
    context: StepContext, config: Config, *, stage: StageName, round_: int
) -> StageSettings:
    """What a stage is built from, and what it goes on from: nothing, or an earlier step's weights."""
    names = read_names(context)
    settings = StageSettings(
        stage=stage,
        config=config,
        scenes=names.scenes,
        objects=names.objects,
        name_embeddings=context.artefacts_of("names").uri,
    )
    before = f"joint-{round_ - 1}"
    if stage == "understanding":
        return settings if round_ == 1 else replace(settings, weights=_file_of(context, before, NET_FILE))
    is_later = round_ > 1
    goes_on = is_later and config.diffusion.denoiser != "frozen"
    alpha = config.fusion.use_coefficients
    return replace(
        settings,
        weights=_file_of(context, f"understanding-{round_}", NET_FILE),
        fusion_weights=_file_of(context, before, NET_FILE) if is_later else None,
        denoiser_weights=_file_of(context, before, DENOISER_FILE) if goes_on else None,
        coefficients=read_coefficients(context.artefacts_of("coefficients")) if alpha else {},
    )


def _file_of(context: StepContext, step: str, name: str) -> str:
    return f"{context.artefacts_of(step).uri}/{name}"


def _train(
    context: StepContext, config: Config, *, stage: StageName, round_: int, subset: RealSubset | None
) -> StepOutput:
    settings = training_settings(context, config, stage=stage, round_=round_)
    if stage == "understanding" and not (settings.scenes or settings.objects):
        logger.info("the data set has no attributes: stage 1 trains without the two contrastive terms")
    result = train_stage(
        settings=settings,
        data=training_set(context, config, stage=stage, round_=round_, subset=subset),
        val=validation_set(context, settings),
        storage=context.artefacts.uri,
        name=context.name,
    )
    keep_weights(context.artefacts, result.checkpoint)
    context.artefacts.write_json("history.json", result.history)
    last = {k: v for k, v in result.history[-1].items() if isinstance(v, float)} if result.history else {}
    return StepOutput(
        outputs={"images": result.images, "left_out": result.left_out},
        metrics={"last": last, "training_seconds": result.seconds},
    )


def keep_weights(
    artefacts: Store, checkpoint: str, *, names: Sequence[str] = (NET_FILE, DENOISER_FILE)
) -> None:
    """Copy those of the exported weights that a last checkpoint has to names of their own."""
    filesystem, _ = artefacts.arrow()
    for name in names:
        path = f"{checkpoint}/{name}"
        if filesystem.get_file_info(path).type == FileType.File:
            with filesystem.open_input_file(path) as file:
                artefacts.write_bytes(name, file.read())


def training_set(
    context: StepContext,
    config: Config,
    *,
    stage: StageName,
    round_: int,
    subset: RealSubset | None = None,
) -> ShardRows:
    """Real training images, from round 2 on with the chosen generated ones, sampled as the stage asks.

    Only columns that the stage reads are there.
    """
    train = config.stage1 if stage == "understanding" else config.stage2
    has_latents = stage == "joint" and config.diffusion.target == "whole" and "latents" in context.inputs
    real = ("latents", "train") if has_latents else ("ingest", f"{SAMPLES_FOLDER}/train")
    parts = [(context.artefacts_of(real[0]), real[1])]
    if round_ > 1:
        parts.append((context.artefacts_of(f"mix-{round_ - 1}"), "synthetic"))
    columns = [*TRAINING_COLUMNS, LATENT] if has_latents else TRAINING_COLUMNS
    data = shard_rows(parts, columns=columns)
    if train.sampling == "natural" and subset is None:
        return data
    labels = read_columns(data, LABELS)
    counts = np.ones(labels.num_rows, dtype=bool)
    if subset is not None:
        real_rows = shard_rows(parts[:1], columns=LABELS).rows
        counts[:real_rows] = subset.mask(labels["image_id"].slice(0, real_rows).to_pylist())
    shown = labels.filter(pa.array(counts))
    repeats = np.zeros(labels.num_rows, dtype=np.uint16)
    plan = plan_repeats(shown, train.sampling, most=train.most_repeats, seed=config.seed)
    repeats[counts] = plan(shown)
    sampled = replace(data, repeats=repeats)
    logger.info("an epoch shows %d images of %d", sampled.rows, labels.num_rows)
    return sampled


def validation_set(context: StepContext, settings: StageSettings) -> ShardRows | None:
    """Images to validate on after each epoch; None if there are too few for every worker to have one.

    Raises:
        ValueError: there are too few, and the best epoch is to be chosen, or the stage to be ended, by them.
    """
    split, workers = settings.train.validate_on, settings.config.resources.most_workers
    images = context.inputs["ingest"].outputs["sizes"].get(split, 0)
    if split == "none" or images < workers:
        section = "stage1" if settings.stage == "understanding" else "stage2"
        few = f"but split {split!r} has {images} images for {workers} workers"
        if settings.train.keep_epoch == "best":
            raise ValueError(
                f"{section}.keep_epoch is 'best', {few}: "
                f"set {section}.keep_epoch to last, or {section}.validate_on to another split"
            )
        if settings.train.stop_after_epochs_without_gain:
            raise ValueError(
                f"{section}.stop_after_epochs_without_gain is set, {few}: "
                f"set it to null, or {section}.validate_on to another split"
            )
        return None
    return shard_rows(
        [(context.artefacts_of("ingest"), f"{SAMPLES_FOLDER}/{split}")], columns=TRAINING_COLUMNS
    )


def trained_settings(context: StepContext, config: Config, *, stage: StageName, step: str) -> StageSettings:
    """What rebuilds the finished network that a step of this stage has left."""
    names = read_names(context)
    folder = context.artefacts_of(step).uri
    weights, trained = f"{folder}/{NET_FILE}", f"{folder}/{DENOISER_FILE}"
    has_denoiser = stage == "joint" and config.diffusion.denoiser != "frozen"
    return StageSettings(
        stage=stage,
        config=config,
        scenes=names.scenes,
        objects=names.objects,
        weights=weights,
        name_embeddings=context.artefacts_of("names").uri,
        denoiser_weights=trained if has_denoiser else None,
        coefficients=read_coefficients(context.artefacts_of("coefficients")),
    )


def encode(context: StepContext, config: Config, *, round_: int) -> StepOutput:
    """The round's network on every training and test image: features and logits."""
    settings = trained_settings(context, config, stage="joint", step=f"joint-{round_}")
    return StepOutput(outputs={"rows": run_encoder(context, config, settings)})


def run_encoder(context: StepContext, config: Config, stage: StageSettings) -> dict[str, int]:
    """Features and logits of training and test images by a stage's network; returns the rows by split."""
    return map_shards(
        context.artefacts_of("ingest"),
        {split: f"{SAMPLES_FOLDER}/{split}" for split in ("train", "test")},
        target=context.artefacts,
        actor=partial(EncoderActor, stage=stage, max_pixels=config.data.max_pixels),
        plan_hash=context.fingerprint,
        pool=pool_of(context, config),
    )


def space_of(
    encoded: Store, labels: LabelSpace, config: Config, *, pool: Pool, subset: RealSubset | None = None
) -> EmotionSpace:
    """Emotion space of what `run_encoder` left, or of those of its images that count."""
    rows = only(as_dataset(encoded, "train", pool=pool), real_ids(encoded, subset), pool=pool)
    present = set(rows.schema().names)
    members = {member: column for member, column in SPACE_COLUMNS.items() if column in present}
    return compute_space(
        rows, settings=config.emotion_space, seed=config.seed, members=members, space=labels, pool=pool
    )
