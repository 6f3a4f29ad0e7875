"""The steps of every job, one table each: name, function, what it reads, what it follows, how it may grow."""

from collections.abc import Sequence
from functools import partial

from uniemo_ray.config import Config
from uniemo_ray.feedback.real_subset import RealSubset, facts_of, subset_of
from uniemo_ray.inference.model_source import describe_model, locate_model
from uniemo_ray.loop.declare import Row
from uniemo_ray.loop.source_model import SourceModel
from uniemo_ray.loop.steps import (
    completion,
    data,
    evaluation,
    feedback,
    inception,
    model_folders,
    scorers,
    training,
    understanding,
)
from uniemo_ray.loop.steps.image_metrics import Judged, measured

FROZEN_CLIP = ("encoder.clip", "encoder.clip_pretrained")
LABELS = ("data.kind", "data.labels", "data.valence", "data.valences")
"""Which classes the run tells apart."""
DIFFUSION_FILES = ("diffusion.model", "diffusion.revision", "diffusion.variant")
VAE = (*DIFFUSION_FILES, "diffusion.size_px", "diffusion.channels_last", "diffusion.vae_slicing")
NETWORK = ("encoder", "fusion", "losses", *LABELS, *DIFFUSION_FILES, "diffusion.text_widths")
"""What shapes the network, and the text width that its condition must have."""
SAMPLING = (
    "seed",
    "diffusion",
    "generation.micro_batch",
    "generation.threads",
    "generation.dtype",
    "generation.compile",
    "generation.png_level",
    "resources.use_gpu",
    "resources.tf32",
)
"""What determines an image's bytes, beside its plan row and the model."""
MEASURING = ("evaluation", "seed", "data.kind", "data.max_pixels", "diffusion.size_px", *FROZEN_CLIP)
STAGE_1 = (
    "encoder",
    *LABELS,
    "losses.scene_weight",
    "losses.object_weight",
    "losses.class_weight",
    "losses.temperature",
    "losses.scene_temperature",
    "losses.learn_temperature",
    "losses.projections",
    "losses.names",
    "losses.several_objects",
    "losses.missing_attribute",
    "losses.contrast",
    "losses.is_symmetric",
    "losses.same_attribute_negatives",
    "data.max_pixels",
    "seed",
    "stage1",
)
"""Nothing of stage 2: the rows of an ablation of stage 2 share one stage 1."""
MODEL = (*NETWORK, "diffusion", "generation.micro_batch", "generation.threads", "seed")
"""What a model folder states of itself."""
NAMES = Row("names", data.names, pool="features", reads=FROZEN_CLIP, after=["ingest"])
FEATURES = Row(
    "features",
    data.features,
    pool="features",
    place="actors",
    reads=[*FROZEN_CLIP, "data.max_pixels"],
    after=["ingest"],
)


def ingest_steps(config: Config) -> list[Row]:
    """`jobs/ingest.py`: the data set's canonical shards."""
    return [Row("ingest", data.ingest, pool="data", place="actors", reads=["data"])]


def precompute_steps(config: Config) -> list[Row]:
    """`jobs/precompute.py`: what no training changes."""
    return [
        *ingest_steps(config),
        Row(
            "check-size",
            partial(data.check_size, subset=subset_of(config)),
            reads=["stage1.batch_size", "stage2.batch_size"],
            after=["ingest"],
            facts=facts_of(subset_of(config)),
        ),
        NAMES,
        FEATURES,
        Row(
            "latents",
            data.latents,
            pool="generate",
            place="actors",
            reads=[*VAE, "diffusion.target", "data.max_pixels"],
            after=["ingest"],
        ),
    ]


def scorer_steps(subset: RealSubset | None = None) -> list[Row]:
    """The scorers of section 2, and the coefficients by them."""
    facts = facts_of(subset)
    return [
        Row(
            "scorers",
            partial(scorers.scorers, subset=subset),
            pool="data",
            reads=[*FROZEN_CLIP, *LABELS, "scorers", "seed"],
            after=["ingest", "features"],
            facts=facts,
        ),
        Row(
            "coefficients",
            partial(scorers.coefficients, subset=subset),
            pool="data",
            reads=[*LABELS, "data.sketch_classes"],
            after=["features", "scorers"],
            facts=facts,
        ),
    ]


def feedback_loop_steps(config: Config) -> list[Row]:
    """`jobs/feedback_loop.py`: the whole method."""
    has_fid, judged = inception.has_inception(config), Judged.of(config.data)
    real = ["features", inception.STEP] if has_fid else ["features"]
    inception_row = Row(
        inception.STEP,
        inception.inception_step,
        pool="features",
        place="actors",
        reads=["evaluation.weights_dir", "diffusion.size_px", "data.max_pixels"],
        after=["ingest"],
        facts={"protocols": ["fid", "fid_train"]},
    )
    return [
        *precompute_steps(config),
        *scorer_steps(subset_of(config)),
        *([inception_row] if has_fid else []),
        *(
            row
            for round_ in range(1, config.feedback.rounds + 2)
            for row in _round_steps(config, round_, real=real)
        ),
        Row(
            "generate-plain",
            partial(feedback.generate, round_=1, space=judged.space, kind="plain"),
            pool="generate",
            place="actors",
            reads=[*SAMPLING, *FROZEN_CLIP, "evaluation.plain_per_emotion", "generation.rows_per_shard"],
            after=["model-1", "scorers"],
            grows_by=["evaluation.plain_per_emotion"],
            facts=judged.stated(),
        ),
        Row(
            "score-plain",
            partial(feedback.score, source="generate-plain"),
            pool="features",
            place="actors",
            reads=FROZEN_CLIP,
            after=["generate-plain", "scorers"],
            grows_by=[],
        ),
        Row(
            "reference-plain",
            partial(evaluation.reference_plain, judged=judged),
            pool="features",
            reads=MEASURING,
            after=["generate-plain", "score-plain", *real],
            facts=measured(config),
        ),
        Row(
            "reference-real",
            partial(evaluation.reference_real, judged=judged),
            pool="features",
            reads=MEASURING,
            after=["ingest", "scorers", *real],
            facts=measured(config),
        ),
    ]


def _round_steps(config: Config, round_: int, *, real: Sequence[str]) -> list[Row]:
    """One training of both stages, its images, and what comes back of them."""
    understanding_, joint, encode, model = (
        f"{name}-{round_}" for name in ("understanding", "joint", "encode", "model")
    )
    generate, score, filter_ = (f"{name}-{round_}" for name in ("generate", "score", "filter"))
    images = ["ingest"] if round_ == 1 else ["ingest", f"mix-{round_ - 1}"]
    weights = [] if round_ == 1 else [f"joint-{round_ - 1}"]
    subset, next_ = subset_of(config, round_), subset_of(config, round_ + 1)
    judged = Judged.of(config.data)
    training_rows = [
        Row(
            understanding_,
            partial(training.understanding, round_=round_, subset=subset),
            pool="train",
            place="workers",
            reads=STAGE_1,
            after=[*images, "names", *weights],
            facts=facts_of(subset),
            round_=round_,
        ),
        Row(
            joint,
            partial(training.joint, round_=round_, subset=subset),
            pool="train",
            place="workers",
            reads=[*NETWORK, "diffusion", "data.max_pixels", "seed", "stage2"],
            after=[*images, "latents", "names", "coefficients", understanding_, *weights],
            facts=facts_of(subset),
            round_=round_,
        ),
        Row(
            encode,
            partial(training.encode, round_=round_),
            pool="features",
            place="actors",
            reads=[*NETWORK, "diffusion.denoiser", "data.max_pixels"],
            after=["ingest", "names", "coefficients", joint],
        ),
        Row(
            model,
            partial(model_folders.model, round_=round_, subset=subset),
            pool="data",
            reads=[*MODEL, "emotion_space"],
            after=["ingest", "names", "coefficients", joint, "scorers", encode],
            facts=facts_of(subset),
        ),
    ]
    feedback_rows = [
        Row(
            filter_,
            partial(feedback.filter_images, round_=round_),
            pool="data",
            reads=["filter.eta", "filter.delta", "filter.scope", "filter.criteria"],
            after=[score],
        ),
        Row(
            f"mix-{round_}",
            partial(feedback.mix, round_=round_, subset=next_),
            pool="generate",
            place="actors",
            reads=["feedback.synthetic_fraction", "seed", *VAE, "diffusion.target"],
            after=[filter_, generate, "features"],
            facts=facts_of(next_),
        ),
    ]
    is_last = round_ == config.feedback.rounds + 1
    return [
        *training_rows,
        Row(
            generate,
            partial(feedback.generate, round_=round_, space=judged.space),
            pool="generate",
            place="actors",
            reads=[
                *SAMPLING,
                *FROZEN_CLIP,
                "generation.prompt",
                "generation.per_emotion",
                "generation.rows_per_shard",
            ],
            after=[model, "scorers"],
            grows_by=["generation.per_emotion"],
            facts=judged.stated(),
        ),
        Row(
            score,
            partial(feedback.score, source=generate),
            pool="features",
            place="actors",
            reads=FROZEN_CLIP,
            after=[generate, "scorers"],
            grows_by=[],
        ),
        *([] if is_last else feedback_rows),
        Row(
            f"evaluate-{round_}",
            partial(evaluation.evaluate, round_=round_, judged=judged),
            pool="features",
            reads=[*MEASURING, *LABELS],
            after=[encode, generate, score, *real],
            facts=measured(config),
        ),
    ]


def understanding_steps(config: Config) -> list[Row]:
    """`jobs/understanding.py`: stage 1 and its model, or a finished model, judged on the test split."""
    given = config.evaluation.model
    if given is None:
        before, model, facts = _stage_1_steps(config), None, {}
        after = ["ingest", "model"]
    else:
        before, model = ingest_steps(config), locate_model(given)
        facts, after = {"model": describe_model(model)[1]}, ["ingest"]
    return [
        *before,
        Row(
            "predict",
            partial(understanding.predict, model=model),
            pool="features",
            place="actors",
            reads=["data.max_pixels"],
            after=after,
            facts=facts,
        ),
        Row("evaluate", understanding.evaluate, reads=LABELS, after=["ingest", "predict"]),
    ]


def _stage_1_steps(config: Config) -> list[Row]:
    """Scorers, coefficients, stage 1 and a model folder without a diffusion model."""
    subset = subset_of(config)
    return [
        *ingest_steps(config),
        Row(
            "check-size",
            partial(data.check_size, with_stage_2=False, subset=subset),
            reads=["stage1.batch_size"],
            after=["ingest"],
            facts=facts_of(subset),
        ),
        NAMES,
        FEATURES,
        *scorer_steps(subset),
        Row(
            "understanding",
            partial(training.understanding, round_=1, subset=subset),
            pool="train",
            place="workers",
            reads=STAGE_1,
            after=["ingest", "names"],
            facts=facts_of(subset),
            round_=1,
        ),
        Row(
            "model",
            partial(model_folders.understanding_model, step="understanding"),
            pool="data",
            reads=MODEL,
            after=["ingest", "names", "scorers", "coefficients", "understanding"],
        ),
    ]


def completion_steps(config: Config, source: SourceModel) -> list[Row]:
    """`jobs/complete_model.py`: what an imported model lacks."""
    model = {"model": source.fingerprint}
    return [
        *ingest_steps(config),
        FEATURES,
        *scorer_steps(),
        Row(
            "encode",
            partial(completion.encode, source=source),
            pool="features",
            place="actors",
            reads=[*NETWORK, "data.max_pixels"],
            after=["ingest"],
            facts=model,
        ),
        Row(
            "model",
            partial(completion.complete, source=source),
            pool="data",
            reads=["data.root", "seed", "emotion_space"],
            after=["coefficients", "scorers", "encode"],
            facts=model,
        ),
    ]
