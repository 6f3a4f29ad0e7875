"""A whole generation with plan, images, commits, manifest and scores, against a bare loop of the same work.

Both paint and score the same images with the same model on one thread; the whole run counts, from before Ray
starts to the step's record, and from before the model is loaded. Short by default, where starting weighs
most; the figure that is meant is that of `--minutes 5`. On S3: --run s3://bucket/prefix.
"""

import argparse
import logging
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import ray

from uniemo_ray.config import Config
from uniemo_ray.distributed.shards.actors.clip import ScoreActor
from uniemo_ray.distributed.shards.actors.diffusion import GenerateActor
from uniemo_ray.distributed.shards.generate import generate_images, score_images
from uniemo_ray.distributed.shards.scoring import Scoring
from uniemo_ray.feedback.plan import PlannedImages
from uniemo_ray.inference.model_folder import ModelParts, load_model_folder
from uniemo_ray.pools import Pool
from uniemo_ray.shipped import SHIPPED, SHIPPED_FOLDER
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.steps import Pipeline, StepContext, StepOutput
from uniemo_ray.store.verify import verify_run

WANTED = 0.90
POOL = Pool(memory_gb=1.5)
# Ray's workers stand back (nice 15) by default; whatever else runs on the machine would slow them alone.
os.environ.setdefault("RAY_worker_niceness", "0")


def bare_seconds(plan: PlannedImages, model: str, heads: str, config: Config) -> float:
    """Loading, painting and scoring in a plain loop that keeps nothing."""
    started, rows = time.perf_counter(), config.generation.rows_per_shard
    paint = GenerateActor(model, threads=1)
    score = ScoreActor(config.encoder.clip, heads, config.encoder.clip_pretrained)
    for start in range(0, plan.num_rows, rows):
        score(paint(plan.slice(start, rows)))
    return time.perf_counter() - started


def run_seconds(plan: PlannedImages, model: str, heads: str, config: Config, uri: str) -> float:
    """The same as two steps of a run, one actor each."""
    started = time.perf_counter()
    run = RunFolder.open(uri, {})
    pipeline = Pipeline(run)
    scoring = Scoring(config.encoder.clip, config.encoder.clip_pretrained, heads, version="bench")

    def generate(context: StepContext) -> StepOutput:
        store = context.artefacts
        generate_images(
            plan,
            store=store,
            model=model,
            config=config.generation,
            pool=POOL,
            scoring=scoring if config.generation.score == "inline" else None,
        )
        return StepOutput()

    def score(context: StepContext) -> StepOutput:
        images = context.artefacts_of("generate-1")
        score_images(
            images=images,
            store=context.artefacts,
            scoring=scoring,
            plan_hash=context.lineage,
            pool=POOL,
        )
        return StepOutput()

    pipeline.step("generate-1", run=generate)
    pipeline.step("score-1", run=score, inputs=["generate-1"])
    with run.locked():
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        pipeline.run()
    seconds = time.perf_counter() - started
    ray.shutdown()
    assert verify_run(run.store).findings == ()
    return seconds


def planned(parts: ModelParts, config: Config, images: int) -> PlannedImages:
    """A plan of about so many images, in whole shards."""
    shards = max(2, round(images / config.generation.rows_per_shard))
    return PlannedImages(
        round_=1,
        kind="emotion",
        per_emotion=shards * config.generation.rows_per_shard // 8,
        seed=0,
        model=parts.fingerprint,
        diffusion=config.diffusion,
        generation=config.generation,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=SHIPPED, help="model folder (default: the shipped one)")
    parser.add_argument("--minutes", type=float, default=0.5, help="how long the bare loop takes, about")
    parser.add_argument("--repeat", type=int, default=1, help="runs, of which the median counts")
    parser.add_argument("--run", help="empty run folder for all of them (default: temporary ones)")
    options = parser.parse_args()
    logging.getLogger("ray").setLevel(logging.WARNING)
    is_shipped = options.model == SHIPPED
    model = SHIPPED if is_shipped else str(Path(options.model).resolve())
    heads = str(SHIPPED_FOLDER) if is_shipped else model
    parts = load_model_folder(model)
    generation = parts.config.generation.model_copy(update={"actors": 1, "threads": 1})
    config = parts.config.model_copy(update={"generation": generation})
    trial = planned(parts, config, images=2 * generation.rows_per_shard)
    per_image = bare_seconds(trial, model, heads, config) / trial.num_rows
    plan = planned(parts, config, images=round(options.minutes * 60 / per_image))
    ratios = []
    for number in range(options.repeat):
        bare = bare_seconds(plan, model, heads, config)
        with tempfile.TemporaryDirectory() as scratch:
            uri = f"{options.run}/{number}" if options.run else scratch
            whole = run_seconds(plan, model, heads, config, uri)
        ratios.append(bare / whole)
        print(f"end to end: {plan.num_rows} images in {whole:.1f} s, bare {bare:.1f} s, "
              f"ratio {ratios[-1]:.3f}", flush=True)  # fmt: skip
    print(f"end to end: median {np.median(ratios):.3f} of {len(ratios)} (wanted {WANTED} for 5 minutes)")


if __name__ == "__main__":
    main()
