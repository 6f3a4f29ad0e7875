"""How much a run does: steps, images, bytes, and with a given rate hours and cost. Pure arithmetic."""

from dataclasses import dataclass

from uniemo_ray.config import Config, TrainConfig
from uniemo_ray.data.readers import label_space
from uniemo_ray.training.schedule import steps_per_epoch

PUBLISHED_SIZES = {"emoset": 94_481, "fi": 18_146}
"""Training images of the public data sets that can be trained on: EmoSet-118K's own split, 80 % of FI."""
TRAIN_SHARE = 0.8
"""Share of a data set's images that train; an estimate."""
SAMPLE_BYTES = 120_000
"""A photo as it lies in a canonical shard; an estimate."""
PNG_BYTES_PER_PIXEL = 1.6
"""A generated image as PNG; an estimate."""
STATE_BYTES = 12
"""Per trained parameter in a checkpoint: weight and two moments, fp32, as `training/checkpoint.py` writes."""
AVERAGE_BYTES = 4
"""Per trained parameter beside these, where a stage keeps an average of its weights."""


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
    mixed: int
    """The chosen generated ones once more, as training samples with their latents."""
    features: int
    """Features of frozen CLIP and of each round's encoder. Features of Inception are not counted."""
    checkpoints: int
    """The kept ones of every stage and its final weights."""
    models: int
    """A model folder per round, and the exported one."""

    @property
    def total(self) -> int:
        """All of it."""
        data = self.samples + self.latents + self.images + self.mixed + self.features
        return data + self.checkpoints + self.models


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


def stage_work(config: Config, *, images: int, with_stage_2: bool = True) -> list[StageWork]:
    """All training stages in order, sampled naturally; later rounds add the synthetic share.

    Without stage 2 there is one round of stage 1, as `jobs/understanding.py` trains it.
    """
    if not with_stage_2:
        return [_stage("understanding", config.stage1, min(images, config.feedback.real_images or images))]
    work = []
    for round_ in range(1, config.feedback.rounds + 2):
        own = config.for_round(round_)
        real = min(images, own.feedback.real_images or images)
        rows = real + (mixed_images(own, real) if round_ > 1 else 0)
        work.append(_stage(f"understanding-{round_}", own.stage1, rows))
        work.append(_stage(f"joint-{round_}", own.stage2, rows))
    return work


def _stage(name: str, train: TrainConfig, rows: int) -> StageWork:
    steps = train.epochs * steps_per_epoch(rows, batch_size=train.batch_size)
    return StageWork(name, rows, train.epochs, steps)


def mixed_images(config: Config, images: int) -> int:
    """Generated images that join the real ones in a later round: the asked share, or all that are kept.

    Of each criterion the filter keeps a band; an estimate, because it takes the scores as independent.
    """
    share, band = config.feedback.synthetic_fraction, (config.filter.delta - config.filter.eta) / 100
    kept = _per_round(config) * band ** len(config.filter.criteria)
    return round(min(share / (1 - share) * images, kept))


def generated_images(config: Config, *, with_stage_2: bool = True) -> int:
    """Images that the run generates: every round's, and those of the plain prompt."""
    if not with_stage_2:
        return 0
    plain = len(label_space(config.data).labels) * config.evaluation.plain_per_emotion
    return (config.feedback.rounds + 1) * _per_round(config) + plain


def written_bytes(
    config: Config,
    *,
    images: int,
    latent_pixels: int,
    trained: tuple[int, int],
    features: tuple[int, int],
    model_bytes: int,
    with_stage_2: bool = True,
) -> Written:
    """Bytes written by a run.

    Args:
        config: the run's settings.
        images: of the training split.
        latent_pixels: numbers in one latent.
        trained: parameters that train in stage 1 and in stage 2.
        features: numbers that frozen CLIP and that the trained encoder leave of an image.
        model_bytes: of a model folder.
        with_stage_2: whether the run is a whole loop.
    """
    is_loop = with_stage_2
    rounds = config.feedback.rounds + 1 if is_loop else 1
    everything = round(images / TRAIN_SHARE)
    generated = generated_images(config, with_stage_2=with_stage_2)
    picture = config.diffusion.size_px**2 * PNG_BYTES_PER_PIXEL
    latent = 2 * latent_pixels if is_loop and config.diffusion.target == "whole" else 0  # float16
    stages = zip((config.stage1, config.stage2), trained, strict=True)
    kept = sum(train.keep_checkpoints * _state_bytes(train) * count for train, count in stages)
    seen = (everything + generated) * features[0] + (rounds * everything * features[1] if is_loop else 0)
    return Written(
        samples=everything * SAMPLE_BYTES,
        # the latents step writes the samples once more, with one column
        latents=images * (SAMPLE_BYTES + latent) if latent else 0,
        images=round(generated * picture),
        mixed=round((rounds - 1) * mixed_images(config, images) * (picture + latent)),
        features=4 * seen,
        checkpoints=rounds * kept,
        models=(rounds + 1) * model_bytes,
    )


def cost(
    work: list[StageWork],
    *,
    generated: int,
    gpus: int,
    generating: int,
    images_per_second: float,
    generated_per_second: float | None,
    price: float | None,
) -> Cost:
    """Hours and money; rates are per GPU, the price is per GPU and hour, also of those that idle.

    `generating` of the `gpus` generate; one rate of training counts for both stages.
    """
    seen = sum(stage.images * stage.epochs for stage in work)
    training = seen / (images_per_second * gpus) / 3600
    generation = generated / (generated_per_second * generating) / 3600 if generated_per_second else None
    gpu_hours = gpus * (training + (generation or 0.0))
    return Cost(training, generation, gpu_hours, None if price is None else gpu_hours * price)


def _per_round(config: Config) -> int:
    return len(label_space(config.data).labels) * config.generation.per_emotion


def _state_bytes(train: TrainConfig) -> int:
    return STATE_BYTES + (AVERAGE_BYTES if train.ema_decay is not None else 0)
