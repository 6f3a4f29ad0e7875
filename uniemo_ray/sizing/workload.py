"""How much a run does: steps, images, bytes, and with a given rate hours and cost. Pure arithmetic."""

from dataclasses import dataclass

from uniemo_ray.config import Config
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.training.schedule import steps_per_epoch

PUBLISHED_SIZES = {"emoset": 94_481, "fi": 18_146}
"""Training images of the public data sets that can be trained on: EmoSet-118K's own split, 80 % of FI."""
SAMPLE_BYTES = 120_000
"""A photo as it lies in a canonical shard; an estimate."""
PNG_BYTES_PER_PIXEL = 1.6
"""A generated image as PNG; an estimate."""
STATE_BYTES = 12
"""Per trained parameter in a checkpoint: weight and two moments, fp32."""


@dataclass(frozen=True)
class StageWork:
    """One training stage of one round."""

    name: str
    images: int
    """Training images of one epoch."""
    epochs: int
    steps: int


@dataclass(frozen=True)
class Written:
    """Bytes in the run folder, by what they are. All but latents and checkpoints are estimates."""

    samples: int
    latents: int
    images: int
    """Generated ones."""
    checkpoints: int
    """The kept ones of every stage and its final weights."""
    models: int
    """A model folder per round, and the exported one."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.samples + self.latents + self.images + self.checkpoints + self.models


@dataclass(frozen=True)
class Cost:
    """Time and money at given rates."""

    training_hours: float
    generation_hours: float | None
    """None without a rate."""
    gpu_hours: float
    price: float | None
    """None without a price per GPU hour."""


def training_images(config: Config, given: int | None) -> int:
    """Size of the training split.

    Raises:
        ValueError: when the config does not tell and none is given.
    """
    if given is not None:
        return given
    if config.data.kind == "sketch":
        return config.data.sketch_train
    if config.data.kind not in PUBLISHED_SIZES:
        raise ValueError(f"the size of data.kind {config.data.kind!r} is not known: give --train-images")
    return PUBLISHED_SIZES[config.data.kind]


def stage_work(config: Config, *, images: int, gpus: int) -> list[StageWork]:
    """All training stages in order, sampled naturally; later rounds add the synthetic share."""
    work = []
    for round_ in range(1, config.feedback.rounds + 2):
        own = config.for_round(round_)
        share = own.feedback.synthetic_fraction if round_ > 1 else 0.0
        rows = images + min(round(share / (1 - share) * images), _per_round(own))
        for name, train in (("understanding", own.stage1), ("joint", own.stage2)):
            steps = train.epochs * steps_per_epoch(rows, world_size=gpus, batch_size=train.batch_size)
            work.append(StageWork(f"{name}-{round_}", rows, train.epochs, steps))
    return work


def generated_images(config: Config) -> int:
    """Images that the run generates: every round's, and those of the plain prompt."""
    plain = len(EMOTIONS) * config.evaluation.plain_per_emotion
    return (config.feedback.rounds + 1) * _per_round(config) + plain


def written_bytes(
    config: Config,
    *,
    images: int,
    latent_pixels: int,
    trained: tuple[int, int],
    model_bytes: int,
) -> Written:
    """Bytes written by a run.

    Args:
        config: the run's settings.
        images: of the training split.
        latent_pixels: numbers in one latent.
        trained: parameters that train in stage 1 and in stage 2.
        model_bytes: of a model folder.
    """
    rounds, pixels = config.feedback.rounds + 1, config.diffusion.size_px**2
    stages = zip((config.stage1, config.stage2), trained, strict=True)
    kept = sum(train.keep_checkpoints * STATE_BYTES * count for train, count in stages)
    return Written(
        samples=round(images / 0.8) * SAMPLE_BYTES,
        # the latents step writes the samples once more, with one float16 column
        latents=images * (SAMPLE_BYTES + 2 * latent_pixels) if config.diffusion.target == "whole" else 0,
        images=round(generated_images(config) * pixels * PNG_BYTES_PER_PIXEL),
        checkpoints=rounds * kept,
        models=(rounds + 1) * model_bytes,
    )


def cost(
    work: list[StageWork],
    *,
    generated: int,
    gpus: int,
    images_per_second: float,
    generated_per_second: float | None,
    price: float | None,
) -> Cost:
    """Hours and money; rates are per GPU, the price is per GPU and hour."""
    seen = sum(stage.images * stage.epochs for stage in work)
    training = seen / (images_per_second * gpus) / 3600
    generation = generated / (generated_per_second * gpus) / 3600 if generated_per_second else None
    gpu_hours = gpus * (training + (generation or 0.0))
    return Cost(training, generation, gpu_hours, None if price is None else gpu_hours * price)


def _per_round(config: Config) -> int:
    return len(EMOTIONS) * config.generation.per_emotion
