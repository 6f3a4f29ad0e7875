"""The steps of `jobs/generation_baselines.py`, one table: those that all baselines need, then each one's."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from uniemo_ray.config import Config
from uniemo_ray.config.generation_baselines import GenerationBaseline, TrainedBaseline
from uniemo_ray.feedback.real_subset import facts_of, subset_of
from uniemo_ray.loop.declare import Row
from uniemo_ray.loop.step_tables import FROZEN_CLIP, LABELS, MEASURING, SAMPLING, VAE, feedback_loop_steps
from uniemo_ray.loop.steps import feedback
from uniemo_ray.loop.steps import generation_baseline_images as images
from uniemo_ray.loop.steps import generation_baseline_training as training
from uniemo_ray.loop.steps.generation_baseline_training import CLOUDS, IMPORT, PRIOR, step_of
from uniemo_ray.loop.steps.image_metrics import Judged, measured
from uniemo_ray.loop.steps.inception import STEP as INCEPTION
from uniemo_ray.store.steps import StepOutput

SECTION = "generation_baselines"
PER_EMOTION = f"{SECTION}.per_emotion"
SHARED = ("ingest", "features", "scorers", INCEPTION, "reference-real")
"""Steps of the feedback loop that every baseline needs; a run folder has them once for both jobs."""
PAINTING = (*SAMPLING, *LABELS, "generation.rows_per_shard")
TRAINING = (*VAE, "diffusion.frozen_dtype", *LABELS, "seed")
RELEASED = ("mapper", "space")
NOT_TRAINED = {
    "textual_inversion": ("prompt",),
    "emogen": RELEASED,
    "dreambooth": ("class_images", "prior_preservation"),
}
"""Settings of a baseline that its training does not read; an own step reads some of them."""


class Method(NamedTuple):
    """What is a baseline's own in the table."""

    generate: Callable[..., StepOutput]
    """Paints; it is told the name of the baseline."""
    reads: Sequence[str]
    """Its settings that painting reads."""
    before: Callable[[Config], list[Row]]
    """Its steps before painting; painting comes after all of them but those of class images."""
    shared: tuple[str, ...] = ()
    """Steps of the feedback loop that these need, beside `SHARED`."""


def generation_baseline_steps(config: Config) -> list[Row]:
    """Data and scorers, then images, scores and metrics of each baseline."""
    methods = {name: METHODS[name] for name in config.generation_baselines.run}
    wanted = {*SHARED, *(step for method in methods.values() for step in _shared(method, config))}
    shared = [row for row in feedback_loop_steps(config) if row.name in wanted]
    return [*shared, *(row for name, method in methods.items() for row in _rows(name, method, config))]


def _rows(name: GenerationBaseline, method: Method, config: Config) -> list[Row]:
    before = method.before(config)
    generate, score = step_of("generate", name), step_of("score", name)
    real = [row.name for row in feedback_loop_steps(config) if row.name in ("features", INCEPTION)]
    return [
        *before,
        Row(
            generate,
            partial(method.generate, baseline=name),
            pool="generate",
            place="actors",
            reads=[*PAINTING, *FROZEN_CLIP, PER_EMOTION, *method.reads],
            after=["scorers", *(row.name for row in before if row.name != PRIOR)],
            grows_by=[PER_EMOTION],
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
        Row(
            step_of("evaluate", name),
            partial(images.evaluate, baseline=name, judged=Judged.of(config.data)),
            pool="features",
            reads=MEASURING,
            after=[generate, score, *real],
            facts=measured(config),
        ),
    ]


def _shared(method: Method, config: Config) -> tuple[str, ...]:
    """Those of the method's shared steps that its own steps come after."""
    needed = {name for row in method.before(config) for name in row.after}
    return tuple(name for name in method.shared if name in needed)


def _of(section: str, *fields: str) -> tuple[str, ...]:
    return tuple(f"{SECTION}.{section}.{field}" for field in fields)


def _nothing(config: Config) -> list[Row]:
    return []


def _training(config: Config, *, name: TrainedBaseline, after: Sequence[str] = ()) -> list[Row]:
    subset, section = subset_of(config), type(getattr(config.generation_baselines, name))
    fields = [field for field in section.model_fields if field not in NOT_TRAINED.get(name, ())]
    clip = (*FROZEN_CLIP, "data.max_pixels") if name == "emogen" else ()
    return [
        Row(
            step_of("train", name),
            partial(training.train, baseline=name, subset=subset),
            pool="train",
            place="workers",
            reads=[*TRAINING, *clip, *_of(name, *fields)],
            after=["latents", *after],
            facts=facts_of(subset),
        )
    ]


def _emogen(config: Config) -> list[Row]:
    """The mapping and the distribution of the features that it maps, trained here or released."""
    own, subset = config.generation_baselines.emogen, subset_of(config)
    if own.mapper is not None:
        shape = ("layers", "hidden", "relu", "layer_norm", "dropout")
        released = training.released_files(own)
        reads = [*LABELS, *_of("emogen", *shape, *RELEASED)]
        return [Row(IMPORT, training.import_emogen, pool="data", reads=reads, facts={"files": released})]
    return [
        *_training(config, name="emogen", after=["ingest", "coefficients"]),
        Row(
            CLOUDS,
            partial(training.clouds, subset=subset),
            pool="features",
            reads=[*LABELS, "seed", *_of("emogen", "images_per_emotion")],
            after=["features"],
            facts=facts_of(subset),
        ),
    ]


def _dreambooth(config: Config) -> list[Row]:
    """Class images where they are wanted, then the training that reads them."""
    if not config.generation_baselines.dreambooth.prior_preservation:
        return _training(config, name="dreambooth")
    prior = Row(
        PRIOR,
        images.paint_prior,
        pool="generate",
        place="actors",
        reads=[*PAINTING, *_of("dreambooth", "class_prompt", "class_images")],
    )
    return [prior, *_training(config, name="dreambooth", after=[PRIOR])]


METHODS: dict[GenerationBaseline, Method] = {
    "plain_prompt": Method(images.generate_plain, _of("plain_prompt", "prompt", "prompts"), _nothing),
    "plain_prompt_sdxl": Method(
        images.generate_plain,
        _of("plain_prompt", "prompt", "prompts", "sdxl_model", "sdxl_variant", "sdxl_size_px"),
        _nothing,
    ),
    "soft_prompt": Method(
        images.generate_words,
        _of("soft_prompt", "vectors"),
        partial(_training, name="soft_prompt"),
        ("latents",),
    ),
    "textual_inversion": Method(
        images.generate_words,
        _of("textual_inversion", "vectors", "prompt"),
        partial(_training, name="textual_inversion"),
        ("latents",),
    ),
    "emogen": Method(
        images.generate_mapped,
        _of("emogen", "layers", "hidden", "relu", "layer_norm", "dropout"),
        _emogen,
        ("latents", "coefficients"),
    ),
    "dreambooth": Method(
        images.generate_tuned,
        _of("dreambooth", "instance_prompt", "train_text_encoder"),
        _dreambooth,
        ("latents",),
    ),
}
"""All baselines, in the order of `generation_baselines.run`'s default."""
