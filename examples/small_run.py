"""A small run folder made in one process: three steps of the feedback loop on the shipped model, without Ray.

The steps use the loop's own code: the plan, the generator, the scorers, the filter and the commit protocol.
Training is left out. In a real run Ray's actors make the shards; here a `for` loop does.
"""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from uniemo_ray.config import Config
from uniemo_ray.distributed.shards.actors.clip import ScoreActor
from uniemo_ray.distributed.shards.actors.diffusion import GenerateActor
from uniemo_ray.feedback.plan import PlannedImages
from uniemo_ray.feedback.plan_shards import commit_plan
from uniemo_ray.feedback.rank_filter import filter_shards
from uniemo_ray.inference.model_source import describe_model
from uniemo_ray.settings_file import load_config
from uniemo_ray.shipped import SHIPPED, SHIPPED_FOLDER
from uniemo_ray.store.base import Store
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.shards import commit_shard, committed, iterate_shards
from uniemo_ray.store.steps import Pipeline, StepContext, StepOutput


def make_small_run(folder: Path, *, per_emotion: int = 6) -> Path:
    """Generate, score and filter `per_emotion` images of each emotion; about half a minute on one core.

    Args:
        folder: new or empty, or a small run of the same size, which is then left as it is.
        per_emotion: images of each of the eight emotions.

    Returns:
        The run folder.
    """
    sets = [f"generation.per_emotion={per_emotion}", "generation.rows_per_shard=12", "diffusion.steps=10"]
    config = load_config(None, ["preset=tiny", *sets])
    run = RunFolder.open(str(folder), config)
    pipeline = Pipeline(run)
    sections = config.model_dump(mode="json")
    made = {name: sections[name] for name in ("generation", "diffusion", "seed")}
    made["model"] = describe_model(SHIPPED)[1]
    pipeline.step("generate-1", run=lambda context: _generate(context, config), settings=made)
    pipeline.step("score-1", run=_score, inputs=["generate-1"])
    judged = {"filter": sections["filter"]}
    pipeline.step(
        "filter-1", run=lambda context: _filter(context, config), settings=judged, inputs=["score-1"]
    )
    pipeline.run()
    return folder


def _generate(context: StepContext, config: Config) -> StepOutput:
    """Commit the plan, then make each shard's images."""
    actor = GenerateActor(str(SHIPPED_FOLDER), threads=config.generation.threads)
    plan = PlannedImages(
        round_=1,
        kind="emotion",
        per_emotion=config.generation.per_emotion,
        seed=config.seed,
        model=actor.generator.fingerprint,
        diffusion=config.diffusion,
        generation=config.generation,
    )
    store = context.artefacts
    commit_plan(plan, store, rows_per_shard=config.generation.rows_per_shard)
    rows = _map(store, "plan", store, "images", actor, context.fingerprint)
    return StepOutput(outputs={"images": rows})


def _score(context: StepContext) -> StepOutput:
    """Score each shard of images into a shard of the same number."""
    actor = ScoreActor(SHIPPED, heads=str(SHIPPED_FOLDER))
    images = context.artefacts_of("generate-1")
    rows = _map(images, "images", context.artefacts, "scores", actor, context.fingerprint)
    return StepOutput(outputs={"rows": rows})


def _filter(context: StepContext, config: Config) -> StepOutput:
    """Rank all score rows and keep the band."""
    summary = filter_shards(context.artefacts_of("score-1"), context.artefacts, config=config.filter)
    return StepOutput(metrics=summary.to_dict())


def _map(
    source: Store,
    inputs: str,
    target: Store,
    outputs: str,
    actor: Callable[[pa.Table], pa.Table],
    plan_hash: str,
) -> int:
    """Turn each committed shard `inputs/part-N` into a committed shard `outputs/part-N`; returns the rows."""
    names = committed(source, f"{inputs}/")
    rows = 0
    for name, table in zip(names, iterate_shards(source, f"{inputs}/"), strict=True):
        result = name.replace(inputs, outputs, 1)
        rows += commit_shard(target, result, actor(table), plan_hash=plan_hash).rows
    return rows
