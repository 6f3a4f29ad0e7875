"""Steps of the explicit feedback: generate, score, filter, mix."""

import logging
from collections.abc import Iterator
from functools import partial
from typing import Literal

from uniemo_ray.config import Config, FilterConfig
from uniemo_ray.distributed.ranking import filter_scores
from uniemo_ray.distributed.shards.actors.diffusion import SyntheticActor
from uniemo_ray.distributed.shards.generate import MappedShards, generate_images, score_images
from uniemo_ray.distributed.shards.map_shards import map_shards
from uniemo_ray.distributed.shards.scoring import Scoring
from uniemo_ray.emotions import LabelSpace
from uniemo_ray.feedback.mixed_shards import MIX_PLAN_FOLDER, SYNTHETIC_FOLDER, commit_mix_plan
from uniemo_ray.feedback.mixing import Kept, check_apart
from uniemo_ray.feedback.mixing import mix as choose_mixture
from uniemo_ray.feedback.plan import PlannedImages
from uniemo_ray.feedback.plan_shards import IMAGES_FOLDER
from uniemo_ray.feedback.rank_filter import KEPT_FOLDER
from uniemo_ray.feedback.real_subset import RealSubset
from uniemo_ray.loop.step_pool import pool_of
from uniemo_ray.pools import find_painters
from uniemo_ray.store.base import Store
from uniemo_ray.store.columns import iterate_columns
from uniemo_ray.store.shards import entries_of
from uniemo_ray.store.steps import StepContext, StepOutput

logger = logging.getLogger(__name__)


def generate(
    context: StepContext,
    config: Config,
    *,
    round_: int,
    space: LabelSpace,
    kind: Literal["emotion", "plain"] = "emotion",
) -> StepOutput:
    """Plan the round's images of every emotion and generate them shard by shard."""
    model_step = f"model-{round_}"
    plan = PlannedImages(
        round_=round_,
        kind=kind,
        per_emotion=config.generation.per_emotion
        if kind == "emotion"
        else config.evaluation.plain_per_emotion,
        seed=config.seed,
        model=str(context.inputs[model_step].outputs["model"]),
        diffusion=config.diffusion,
        generation=config.generation,
        emotions=space.labels,
    )
    made = generate_images(
        plan,
        store=context.artefacts,
        model=f"{context.artefacts_of(model_step).uri}/model",
        config=config.generation,
        pool=find_painters(config),
        scoring=scoring_of(context, config) if config.generation.score == "inline" else None,
    )
    return mapped_output(made, images=made.rows)


def score(context: StepContext, config: Config, *, source: str) -> StepOutput:
    """Score the images of a generating step into files of their own."""
    scored = score_images(
        images=context.artefacts_of(source),
        store=context.artefacts,
        scoring=scoring_of(context, config),
        plan_hash=context.lineage,
        pool=pool_of(context, config),
        retries=config.generation.retries,
    )
    return mapped_output(scored)


def scoring_of(context: StepContext, config: Config) -> Scoring:
    """The scorers that the step of that name has left, on the run's CLIP."""
    encoder, scorers = config.encoder, context.inputs["scorers"]
    return Scoring(
        encoder.clip, encoder.clip_pretrained, context.artefacts_of("scorers").uri, scorers.fingerprint
    )


def mapped_output(made: MappedShards, **outputs: int) -> StepOutput:
    """What a step says of the shards that it has mapped."""
    failed = sum(made.failed.values())
    return StepOutput(
        outputs={"rows": made.rows, "failed": made.failed, **outputs},
        metrics={"rows_per_second_and_actor": made.rows_per_second_and_actor},
        status=f"finished with {failed} failures" if failed else "finished",
    )


def filter_images(context: StepContext, config: Config, *, round_: int) -> StepOutput:
    """Keep the rank band of both scores, from score rows alone."""
    chosen = config.filter
    summary = filter_scores(
        context.artefacts_of(f"score-{round_}"),
        context.artefacts,
        config=FilterConfig(eta=chosen.eta, delta=chosen.delta, scope=chosen.scope, criteria=chosen.criteria),
        pool=pool_of(context, config),
    )
    logger.info("kept %d of %d images", summary.kept, summary.total)
    if not summary.kept:
        _report_empty(summary.total, chosen, round_=round_)
    return StepOutput(metrics=summary.to_dict())


def _report_empty(total: int, config: FilterConfig, *, round_: int) -> None:
    """Say that nothing comes back to training; raise ValueError where that shall end the run."""
    what = (
        f"the filter of round {round_} keeps none of {total} images: none ranks between filter.eta "
        f"{config.eta:g} % and filter.delta {config.delta:g} % by {' and by '.join(config.criteria)}"
    )
    if config.on_empty == "fail":
        raise ValueError(
            f"{what}. Widen the band, raise generation.per_emotion, or set filter.on_empty=continue"
        )
    logger.warning("%s. Round %d trains on the real images alone", what, round_ + 1)


def mix(context: StepContext, config: Config, *, round_: int, subset: RealSubset | None = None) -> StepOutput:
    """Choose kept images for the next round and write them as training samples."""
    made, features = context.artefacts_of(f"generate-{round_}"), context.artefacts_of("features")
    real = subset.count if subset else sum(entry.rows for entry in entries_of(features, "train"))
    kept = _kept(context.artefacts_of(f"filter-{round_}"))
    mixture = choose_mixture(real, kept, fraction=config.feedback.synthetic_fraction, seed=config.seed)
    real_ids = iterate_columns(features, "train/", ["image_id"])
    check_apart(mixture.synthetic, (table["image_id"].to_pylist() for table in real_ids))
    if len(mixture.synthetic) < mixture.wanted:
        logger.info("%d images were kept, %d were wanted", mixture.available, mixture.wanted)
    images = {entry.name: entry for entry in entries_of(made, IMAGES_FOLDER)}
    commit_mix_plan(mixture.synthetic, images, context.artefacts, plan=context.fingerprint)
    map_shards(
        context.artefacts,
        {SYNTHETIC_FOLDER: MIX_PLAN_FOLDER},
        target=context.artefacts,
        actor=partial(
            SyntheticActor,
            images=made,
            diffusion=config.diffusion if config.diffusion.target == "whole" else None,
        ),
        plan_hash=None,
        pool=pool_of(context, config),
    )
    return StepOutput(
        metrics={
            "synthetic": len(mixture.synthetic),
            "wanted": mixture.wanted,
            "real": mixture.real,
            "fraction": mixture.fraction,
        }
    )


def _kept(filtered: Store) -> Iterator[Kept]:
    """The images that the filter keeps, each with its shard: verdicts lie in shards of the same names."""
    entries = entries_of(filtered, KEPT_FOLDER)
    tables = iterate_columns(filtered, f"{KEPT_FOLDER}/", ["image_id", "kept"])
    for entry, table in zip(entries, tables, strict=True):
        shard = f"{IMAGES_FOLDER}/{entry.name.rpartition('/')[2]}"
        for image_id in table.filter(table["kept"])["image_id"].to_pylist():
            yield Kept(image_id, shard)
