"""Steps of the baselines of generation that paint, and what measures their images."""

from collections.abc import Mapping
from functools import partial

from uniemo_ray.baselines.generation.dreambooth import PRIOR_FOLDER
from uniemo_ray.baselines.generation.emogen import shape_of
from uniemo_ray.baselines.generation.painters import MapperPainter, PlainPainter, TokenPainter, TunedPainter
from uniemo_ray.baselines.generation.plan import BaselinePlan
from uniemo_ray.baselines.generation.prompts import named, plain_prompts
from uniemo_ray.baselines.generation.tokens import written
from uniemo_ray.config import PLACEHOLDER, Config, DiffusionConfig
from uniemo_ray.config.generation_baselines import GenerationBaseline, TrainedBaseline
from uniemo_ray.data.readers import label_space
from uniemo_ray.distributed.shards.actors.diffusion import GenerateActor, PainterLoader, PriorActor
from uniemo_ray.distributed.shards.generate import MappedShards, generate_images
from uniemo_ray.distributed.shards.map_shards import map_shards
from uniemo_ray.distributed.shards.scoring import Scoring
from uniemo_ray.feedback.plan import Kind
from uniemo_ray.feedback.plan_shards import IMAGES_FOLDER
from uniemo_ray.inference.rendering import Rendering
from uniemo_ray.loop.step_pool import pool_of
from uniemo_ray.loop.steps.evaluation import measure_step
from uniemo_ray.loop.steps.feedback import mapped_output, scoring_of
from uniemo_ray.loop.steps.generation_baseline_training import CLOUDS, CLOUDS_FILE, IMPORT, step_of
from uniemo_ray.loop.steps.image_metrics import Judged
from uniemo_ray.loop.steps.training import NET_FILE
from uniemo_ray.pools import find_painters
from uniemo_ray.store.fingerprint import fingerprint
from uniemo_ray.store.steps import StepContext, StepOutput


def generate_plain(context: StepContext, config: Config, *, baseline: GenerationBaseline) -> StepOutput:
    """Images of the untrained diffusion model by a prompt of words."""
    own = config.generation_baselines.plain_prompt
    diffusion = plain_diffusion(config)
    if baseline == "plain_prompt_sdxl":
        sdxl = {"model": own.sdxl_model, "variant": own.sdxl_variant, "size_px": own.sdxl_size_px}
        diffusion = diffusion.model_copy(update=sdxl | {"revision": None, "text_widths": None})
    prompts = plain_prompts(own, label_space(config.data).labels)
    return paint(
        context, config, baseline=baseline, painter=untrained(diffusion), prompts=prompts, kind="plain"
    )


def generate_words(context: StepContext, config: Config, *, baseline: TrainedBaseline) -> StepOutput:
    """Images by prompts that hold learnt words."""
    labels, own = label_space(config.data).labels, config.generation_baselines
    prompt = (
        written(own.textual_inversion.prompt, own.textual_inversion.vectors)
        if baseline == "textual_inversion"
        else written("{}", own.soft_prompt.vectors)
    )
    trained = step_of("train", baseline)
    painter = TokenPainter(
        diffusion=plain_diffusion(config),
        fingerprint=context.inputs[trained].fingerprint[:16],
        weights=f"{context.artefacts_of(trained).uri}/{NET_FILE}",
        labels=labels,
    )
    prompts = dict.fromkeys(labels, prompt)
    return paint(context, config, baseline=baseline, painter=painter, prompts=prompts, kind="emotion")


def generate_mapped(context: StepContext, config: Config, *, baseline: GenerationBaseline) -> StepOutput:
    """Images by words that are mapped from drawn features."""
    labels = label_space(config.data).labels
    is_released = IMPORT in context.inputs
    mapper, clouds = (IMPORT, IMPORT) if is_released else (step_of("train", baseline), CLOUDS)
    painter = MapperPainter(
        diffusion=plain_diffusion(config),
        fingerprint=context.inputs[mapper].fingerprint[:16],
        mapper=f"{context.artefacts_of(mapper).uri}/{NET_FILE}",
        clouds=f"{context.artefacts_of(clouds).uri}/{CLOUDS_FILE}",
        shape=shape_of(config.generation_baselines.emogen),
        labels=labels,
    )
    prompts = dict.fromkeys(labels, PLACEHOLDER)
    return paint(context, config, baseline=baseline, painter=painter, prompts=prompts, kind="emotion")


def generate_tuned(context: StepContext, config: Config, *, baseline: GenerationBaseline) -> StepOutput:
    """Images of the fine-tuned diffusion model by its prompt of words."""
    own, trained = config.generation_baselines.dreambooth, step_of("train", baseline)
    painter = TunedPainter(
        diffusion=plain_diffusion(config),
        fingerprint=context.inputs[trained].fingerprint[:16],
        folder=context.artefacts_of(trained).uri,
        has_text_encoder=own.train_text_encoder,
    )
    prompts = named(dict.fromkeys(label_space(config.data).labels, own.instance_prompt))
    return paint(context, config, baseline=baseline, painter=painter, prompts=prompts, kind="plain")


def paint_prior(context: StepContext, config: Config) -> StepOutput:
    """DreamBooth's class images, and their latents, which are what training reads."""
    own, diffusion = config.generation_baselines.dreambooth, plain_diffusion(config)
    painter = untrained(diffusion)
    plan = BaselinePlan(
        baseline="class",
        kind="plain",
        prompts=named(dict.fromkeys(label_space(config.data).labels, own.class_prompt)),
        per_emotion=own.class_images,
        seed=config.seed,
        model=painter.fingerprint,
        diffusion=diffusion,
        generation=config.generation,
    )
    made = generate_plan(context, config, plan, painter, scoring=None)
    map_shards(
        context.artefacts,
        {PRIOR_FOLDER: IMAGES_FOLDER},
        target=context.artefacts,
        actor=partial(PriorActor, diffusion=diffusion),
        plan_hash=None,
        pool=pool_of(context, config),
    )
    return mapped_output(made, images=made.rows)


def untrained(diffusion: DiffusionConfig) -> PlainPainter:
    """The diffusion model as it is published, under a fingerprint of its address."""
    name = fingerprint([diffusion.model, diffusion.revision, diffusion.variant])
    return PlainPainter(diffusion=diffusion, fingerprint=name[:16])


def plain_diffusion(config: Config) -> DiffusionConfig:
    """The section of a step's view, which has declared all of it."""
    return DiffusionConfig.model_validate(config.diffusion.model_dump())


def paint(
    context: StepContext,
    config: Config,
    *,
    baseline: GenerationBaseline,
    painter: PlainPainter,
    prompts: Mapping[str, str],
    kind: Kind,
) -> StepOutput:
    """Plan a baseline's images and generate them shard by shard, as those of a round are."""
    plan = BaselinePlan(
        baseline=baseline.replace("_", "-"),
        kind=kind,
        prompts=prompts,
        per_emotion=config.generation_baselines.per_emotion,
        seed=config.seed,
        model=painter.fingerprint,
        diffusion=painter.diffusion,
        generation=config.generation,
    )
    scoring = scoring_of(context, config) if config.generation.score == "inline" else None
    made = generate_plan(context, config, plan, painter, scoring=scoring)
    return mapped_output(made, images=made.rows)


def generate_plan(
    context: StepContext,
    config: Config,
    plan: BaselinePlan,
    painter: PainterLoader,
    *,
    scoring: Scoring | None,
) -> MappedShards:
    """Generate a plan's images into the step's folder."""
    own = config.generation
    return generate_images(
        plan,
        store=context.artefacts,
        model="",
        config=own,
        pool=find_painters(config),
        actor=partial(
            GenerateActor,
            model=painter,
            threads=own.threads,
            rendering=Rendering.of(own),
            scoring=scoring,
        ),
    )


def evaluate(
    context: StepContext, config: Config, *, baseline: GenerationBaseline, judged: Judged
) -> StepOutput:
    """All metrics of a baseline's images."""
    found = measure_step(
        context,
        config,
        images=step_of("generate", baseline),
        scores=step_of("score", baseline),
        judged=judged,
    )
    return StepOutput(metrics=found)
