"""The feedback loop as named steps on a run folder; `jobs/feedback_loop.py` is its command line."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from uniemo_ray.addresses import locate
from uniemo_ray.config import Config
from uniemo_ray.inference.model_source import describe_model
from uniemo_ray.loop.steps import data, evaluation, feedback, scorers, training, understanding
from uniemo_ray.metrics.inception import INCEPTION_FILE
from uniemo_ray.metrics.perceptual import has_alexnet
from uniemo_ray.metrics.resnet import has_judges
from uniemo_ray.metrics.weights import has_weights
from uniemo_ray.shipped import SHIPPED
from uniemo_ray.store.steps import Pipeline, StepContext, StepOutput

NOT_RESULTS = ("checkpoint_every_s", "keep_checkpoints")
"""Settings that decide when something happens, not what comes out."""
CLIP = ("encoder.clip", "encoder.clip_pretrained")
VAE = ("diffusion.model", "diffusion.revision", "diffusion.variant", "diffusion.size_px")
NET = ("encoder", "fusion", "losses", "seed", *VAE[:3], "diffusion.denoiser", "diffusion.lora_rank")
JOINT = ("diffusion.prompt", "diffusion.size_px", "diffusion.target", "diffusion.frozen_dtype")
SAMPLING = ("diffusion", "generation.micro_batch", "generation.threads", "resources.use_gpu", "seed")


def declare_ingest(pipeline: Pipeline, config: Config) -> None:
    """Declare the first step, which a job of its own may run ahead of the others."""
    _declare(pipeline, config, "ingest", data.ingest, ["data"])


def declare_steps(pipeline: Pipeline, config: Config) -> None:
    """Declare every step in order, with the settings and the steps that its result depends on."""
    declare_precomputed(pipeline, config)
    declare_scorers(pipeline, config)
    step = partial(_declare, pipeline, config)
    if has_weights(config.evaluation.weights_dir, INCEPTION_FILE):
        step("inception", evaluation.inception_step, ["evaluation.weights_dir", JOINT[1]], after=["ingest"])
    real, more = real_features(config), published_metrics(config)
    for round_ in range(1, config.feedback.rounds + 2):
        is_last = round_ == config.feedback.rounds + 1
        own = partial(_declare, pipeline, config.for_round(round_))
        _declare_round(own, round_, is_last=is_last, real=real, more=more)
    plain = partial(feedback.generate, round_=1, kind="plain")
    size = "evaluation.plain_per_emotion"
    step("generate-plain", plain, [*SAMPLING, size], after=["model-1"], grows_by=[size])
    scoring = partial(feedback.score, source="generate-plain")
    step("score-plain", scoring, after=["generate-plain", "scorers"], grows_by=[])
    measured = ["evaluation", "seed", *CLIP]
    after = ["generate-plain", "score-plain", *real]
    step("reference-plain", evaluation.reference_plain, measured, after=after, more=more)
    step("reference-real", evaluation.reference_real, measured, after=["ingest", "scorers", *real], more=more)


def declare_understanding(pipeline: Pipeline, config: Config) -> None:
    """Declare what judges understanding alone: stage 1 and its model, or a finished model folder."""
    declare_ingest(pipeline, config)
    step = partial(_declare, pipeline, config)
    given, before = given_model(config), ["model"]
    if given is None:
        _declare_stage_1(pipeline, config)
        judged = {}
    else:
        judged, before = {"model": describe_model(given)[1]}, []
    predict = partial(understanding.predict, model=given)
    step("predict", predict, ["data.max_pixels"], after=["ingest", *before], more=judged)
    step("evaluate", understanding.evaluate, after=["ingest", "predict"])


def given_model(config: Config) -> str | None:
    """The full address of the model folder that is to be judged, or None: then one is trained."""
    model = config.evaluation.model
    return model if model in (None, SHIPPED) else locate(model)


def _declare_stage_1(pipeline: Pipeline, config: Config) -> None:
    """Scorers, coefficients, stage 1 and a model folder without a diffusion model."""
    step = partial(_declare, pipeline, config)
    own = partial(_declare, pipeline, config.for_round(1))
    step("names", partial(data.names, with_stage_2=False), [*CLIP], after=["ingest"])
    declare_features(pipeline, config)
    declare_scorers(pipeline, config)
    first = partial(training.understanding, round_=1)
    own("understanding", first, [*NET, "stage1"], after=["ingest", "names"])
    making = partial(training.understanding_model, step="understanding")
    after = ["ingest", "names", "scorers", "coefficients", "understanding"]
    step("model", making, ["diffusion", *NET], after=after)


def declare_precomputed(pipeline: Pipeline, config: Config) -> None:
    """Declare what no training changes: canonical shards, text embeddings, CLIP features, VAE latents."""
    declare_ingest(pipeline, config)
    step = partial(_declare, pipeline, config)
    step("names", data.names, [*CLIP], after=["ingest"])
    declare_features(pipeline, config)
    step("latents", data.latents, [*VAE, "diffusion.target"], after=["ingest"])


def declare_features(pipeline: Pipeline, config: Config) -> None:
    """Declare frozen CLIP features of every split; after `ingest`."""
    _declare(pipeline, config, "features", data.features, [*CLIP], after=["ingest"])


def declare_scorers(pipeline: Pipeline, config: Config) -> None:
    """Declare scorers and coefficients; after `features`."""
    step = partial(_declare, pipeline, config)
    step("scorers", scorers.scorers, [*CLIP, "scorers", "seed"], after=["ingest", "features"])
    step("coefficients", scorers.coefficients, after=["features", "scorers"])


def real_features(config: Config) -> list[str]:
    """Steps with features of real images, for Fréchet distances."""
    published = has_weights(config.evaluation.weights_dir, INCEPTION_FILE)
    return ["features", "inception"] if published else ["features"]


def published_metrics(config: Config) -> dict[str, list[str]]:
    """Which metrics the files in `evaluation.weights_dir` give: a file that is added later adds its own.

    True FID is not among them, as it has a step of its own. Empty without a folder.
    """
    folder = config.evaluation.weights_dir
    there = {"lpips_alex": has_alexnet(folder), "sem_c": has_judges(folder)}
    found = [name for name, is_there in there.items() if is_there]
    return {"published": found} if found else {}


def _declare_round(
    step: Any, round_: int, *, is_last: bool, real: Sequence[str], more: Mapping[str, Any]
) -> None:
    """One training of both stages, its images, and what comes back of them."""
    r = f"{round_}"
    before = [f"mix-{round_ - 1}", f"joint-{round_ - 1}"] if round_ > 1 else []
    data_steps = ["ingest", "names", "latents", *before[:1]]
    first, second = partial(training.understanding, round_=round_), partial(training.joint, round_=round_)
    step(f"understanding-{r}", first, [*NET, "stage1"], after=[*data_steps, *before[1:]])
    step(
        f"joint-{r}",
        second,
        [*NET, *JOINT, "stage2"],
        after=[*data_steps, "coefficients", f"understanding-{r}", *before[1:]],
    )
    net = ["ingest", "names", "coefficients", f"joint-{r}"]
    step(f"encode-{r}", partial(training.encode, round_=round_), [*NET], after=net)
    step(
        f"model-{r}",
        partial(training.model, round_=round_),
        ["diffusion", *NET],
        after=[*net, "scorers", f"encode-{r}"],
    )
    size = "generation.per_emotion"
    images = [*SAMPLING, size, "generation.rows_per_shard"]
    making = partial(feedback.generate, round_=round_)
    step(f"generate-{r}", making, images, after=[f"model-{r}"], grows_by=[size])
    scoring = partial(feedback.score, source=f"generate-{r}")
    step(f"score-{r}", scoring, after=[f"generate-{r}", "scorers"], grows_by=[])
    if not is_last:
        step(f"filter-{r}", partial(feedback.filter_images, round_=round_), ["filter"], after=[f"score-{r}"])
        mixed = ["feedback.synthetic_fraction", "seed", *VAE, "diffusion.target"]
        after = [f"filter-{r}", f"generate-{r}", "features"]
        step(f"mix-{r}", partial(feedback.mix, round_=round_), mixed, after=after)
    measured = ["evaluation", "seed", *CLIP]
    after = [f"encode-{r}", f"generate-{r}", f"score-{r}", *real]
    step(f"evaluate-{r}", partial(evaluation.evaluate, round_=round_), measured, after=after, more=more)


def _declare(
    pipeline: Pipeline,
    config: Config,
    name: str,
    run: Any,
    settings: Sequence[str] = (),
    *,
    after: Sequence[str] = (),
    grows_by: Sequence[str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> None:
    def execute(context: StepContext) -> StepOutput:
        output: StepOutput = run(context, config)
        return output

    values = {key: setting(config, key) for key in settings} | dict(more or {})
    pipeline.step(name, run=execute, settings=values, inputs=after, grows_by=grows_by)


def setting(config: Config, key: str) -> Any:
    """The value at a dotted key as plain JSON, without what does not decide results."""
    value: Any = config.model_dump(mode="json")
    for part in key.split("."):
        value = value[part]
    return {k: v for k, v in value.items() if k not in NOT_RESULTS} if isinstance(value, dict) else value
