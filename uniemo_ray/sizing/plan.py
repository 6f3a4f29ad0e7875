"""The whole plan of a run, from its config alone."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from uniemo_ray.config import Config
from uniemo_ray.models.uniemo import PARTS
from uniemo_ray.pools import PoolsConfig, find_painters, find_pool
from uniemo_ray.sizing.architectures import Architecture, find_architecture
from uniemo_ray.sizing.blueprint import STAGES, Blueprint, PartSize, Stage, build_blueprint, part_sizes
from uniemo_ray.sizing.feeding import GPU, Feeding, feeding_of
from uniemo_ray.sizing.flops import ImageFlops, image_flops
from uniemo_ray.sizing.gpus import GPUS, Arithmetic, GpuHours, gpu_hours
from uniemo_ray.sizing.memory import FP32, ZERO_STAGES, GpuMemory, Load, gpu_memory
from uniemo_ray.sizing.pool_work import PoolWork, pool_work
from uniemo_ray.sizing.workload import (
    TRAIN_SHARE,
    Cost,
    StageWork,
    Written,
    generated_images,
    stage_work,
    training_images,
    written_bytes,
)
from uniemo_ray.sizing.workload import cost as total_cost

NAMES = {"sketch": (16, 24), "emoset": (254, 409)}
"""Scene and object names of the data sets that have them; they add buffers, no parameters."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What only the user knows."""

    images_per_second: float | None = None
    """Training images of one GPU, one rate for both stages."""
    generated_per_second: float | None = None
    """Generated images of one GPU."""
    price: float | None = None
    """Price of one GPU for one hour."""
    gpu_type: str | None = None
    """A GPU of `GPUS`, for an estimate of the hours from the operations of an image."""


@dataclass(frozen=True, kw_only=True)
class StageMemory:
    """One stage's memory under every ZeRO stage."""

    stage: int
    batch_per_gpu: int
    """Images of a step on the GPU with most of them."""
    at_once: int
    """Images that pass the model at once."""
    chosen: int
    """ZeRO stage of the config."""
    options: tuple[GpuMemory, ...]
    """ZeRO 0 to 3."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will need."""

    clip: str
    diffusion: str | None
    """None where stage 1 is alone."""
    gpus: int
    gpu_memory: int
    """Bytes of one GPU."""
    parts: tuple[PartSize, ...]
    memory: tuple[StageMemory, ...]
    feeding: tuple[Feeding, ...]
    """Of each stage, where training runs on GPUs."""
    work: tuple[StageWork, ...]
    generated: int
    written: Written
    cost: Cost | None
    """None without a rate."""
    hours: GpuHours | None
    """Estimated from operations; None without a type of GPU."""
    pools: tuple[PoolWork, ...]
    has_pools: bool
    """Whether the config says which machines do what."""
    has_activations: bool
    notes: tuple[str, ...]
    """What the numbers do not say by themselves."""
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, with the sums."""
        values = asdict(self)
        for stage, shown in zip(self.memory, values["memory"], strict=True):
            for option, row in zip(stage.options, shown["options"], strict=True):
                row["total"] = option.total
        values["written"]["total"] = self.written.total
        for pool, row in zip(self.pools, values["pools"], strict=True):
            row["cost"] = pool.cost
        return values


def make_plan(
    config: Config,
    *,
    gpu_memory_bytes: int,
    rates: Rates | None = None,
    train_images: int | None = None,
    architecture: str | None = None,
    with_activations: bool = True,
    per_machine: Mapping[str, int] | None = None,
    with_stage_2: bool = True,
) -> Plan:
    """Count, estimate and warn; one GPU for each of `resources.workers`.

    Of bounds, time and cost count the most workers, and memory the least: then each GPU holds the most.

    Args:
        config: of the run.
        gpu_memory_bytes: of one GPU.
        rates: throughput and price; without, no hours and no cost.
        train_images: size of the training split, where the config does not tell.
        architecture: of the diffusion model, instead of `diffusion.model`.
        with_activations: estimate them; takes most of the time.
        per_machine: processes of a pool that share a machine.
        with_stage_2: whether the run is a whole loop; else stage 1 alone, as `jobs/understanding.py` runs it.

    Raises:
        ValueError: for models or a data set that nothing here knows.
    """
    rates = rates or Rates()
    gpus, images = config.resources.most_workers, training_images(config, train_images)
    shape = find_architecture(architecture or config.diffusion.model)
    blueprint = build_blueprint(config, shape, names=NAMES.get(config.data.kind, (0, 0)))
    parts, stages = part_sizes(blueprint, config), STAGES
    if not with_stage_2:
        parts, stages = [replace(part, stage2=0) for part in parts[: len(PARTS)]], STAGES[:1]
    memory = tuple(
        _stage_memory(stage, blueprint, shape, config, parts=parts, with_activations=with_activations)
        for stage in stages
    )
    work = stage_work(config, images=images, with_stage_2=with_stage_2)
    generated = generated_images(config, with_stage_2=with_stage_2)
    latent = int(shape.denoiser["in_channels"]) * (config.diffusion.size_px // shape.pixels_per_latent) ** 2
    written = written_bytes(
        config,
        images=images,
        latent_pixels=latent,
        trained=(sum(part.stage1 for part in parts), sum(part.stage2 for part in parts)),
        features=_feature_sizes(blueprint, config),
        model_bytes=FP32 * sum(part.total for part in parts),
        with_stage_2=with_stage_2,
    )
    is_fed, is_counted = bool(find_pool(config, "train").gpus), rates.images_per_second is None
    flops = image_flops(blueprint, shape, config) if rates.gpu_type or (is_fed and is_counted) else None
    measured = rates.images_per_second
    feeding = [feeding_of(stage, config, flops=flops, measured=measured) for stage in stages if is_fed]
    cost = _cost(config, work, generated, rates)
    hours = _hours(
        config, work, flops, rates.gpu_type, images=images, generated=generated, with_stage_2=with_stage_2
    )
    return Plan(
        clip=config.encoder.clip,
        diffusion=shape.name if with_stage_2 else None,
        gpus=gpus,
        gpu_memory=gpu_memory_bytes,
        parts=tuple(parts),
        memory=memory,
        feeding=tuple(feeding),
        work=tuple(work),
        generated=generated,
        written=written,
        cost=cost,
        hours=hours,
        pools=pool_work(config, cost=cost, hours=hours, per_machine=per_machine),
        has_pools=config.resources.pools != PoolsConfig(),
        has_activations=with_activations,
        notes=(*_feeding_notes(feeding, config, rates), *_notes(config, rates, with_stage_2=with_stage_2)),
        warnings=tuple(_warnings(memory, gpu_memory_bytes, config)),
    )


def _cost(config: Config, work: list[StageWork], generated: int, rates: Rates) -> Cost | None:
    if rates.images_per_second is None:
        return None
    return total_cost(
        work,
        generated=generated,
        gpus=config.resources.most_workers,
        generating=_generating(config),
        images_per_second=rates.images_per_second,
        generated_per_second=rates.generated_per_second,
        price=rates.price,
    )


def _hours(
    config: Config,
    work: list[StageWork],
    flops: ImageFlops | None,
    gpu_type: str | None,
    *,
    images: int,
    generated: int,
    with_stage_2: bool,
) -> GpuHours | None:
    """GPU hours of the whole run, if a type of GPU is named.

    All images pass CLIP once for their features, and once in each round.
    """
    if flops is None or gpu_type is None:
        return None
    everything, rounds = round(images / TRAIN_SHARE), config.feedback.rounds + 1 if with_stage_2 else 0
    seen = {stage.name: stage.images * stage.epochs for stage in work}
    return gpu_hours(
        GPUS[gpu_type],
        flops,
        stage1_images=sum(count for name, count in seen.items() if name.startswith("understanding")),
        stage2_images=sum(count for name, count in seen.items() if name.startswith("joint")),
        generated=generated,
        clip_passes=(1 + rounds) * everything + generated,
        latents=images if with_stage_2 and config.diffusion.target == "whole" else 0,
        training="fp32" if config.stage1.precision == "fp32" else "bf16",
        generation=_generation_arithmetic(config),
    )


def _generation_arithmetic(config: Config) -> Arithmetic:
    """What generation computes in; fp32 products are rounded to TF32 unless the run forbids it."""
    name = config.generation.dtype or config.diffusion.frozen_dtype
    if name != "fp32":
        return "bf16"
    return "tf32" if config.resources.tf32 else "fp32"


def _generating(config: Config) -> int:
    """GPUs that generate: one for each actor, among those that train unless its pool has its own."""
    actors = find_painters(config).actors
    return actors if config.resources.pools.generate.labels else min(config.resources.most_workers, actors)


def _feature_sizes(blueprint: Blueprint, config: Config) -> tuple[int, int]:
    """Numbers that frozen CLIP and that the trained encoder leave of an image."""
    net = blueprint.net
    pooled = 1 + 2 * net.has_queries + ("patch" in config.fusion.members)
    return net.scenes.embeddings.shape[1], pooled * net.encoder.width


def _notes(config: Config, rates: Rates, *, with_stage_2: bool) -> list[str]:
    notes = []
    if not with_stage_2:
        notes.append("Stage 1 alone, as jobs/understanding.py runs it: no stage 2 and no generation")
    for name, train in (("stage1", config.stage1), ("stage2", config.stage2))[: 2 if with_stage_2 else 1]:
        if train.sampling != "natural":
            notes.append(
                f"{name}.sampling {train.sampling!r} is not counted: an epoch has up to "
                f"{train.most_repeats:g} times as many images, steps and hours"
            )
    if with_stage_2 and rates.images_per_second is not None:
        notes.append("One training rate stands for both stages: of rates a and b give 2 / (1/a + 1/b)")
    gpus = config.resources.most_workers
    if with_stage_2 and rates.generated_per_second is not None and _generating(config) < gpus:
        notes.append(
            f"generation.actors: {_generating(config)} of {gpus} GPUs generate, "
            f"the others idle and cost as much"
        )
    return notes


def _feeding_notes(feeding: list[Feeding], config: Config, rates: Rates) -> list[str]:
    notes = []
    of = "" if rates.images_per_second else f", {GPU.name.upper()}"
    for found in feeding:
        line = (
            f"Stage {found.stage}: {found.cpus} CPU{'s' * (found.cpus > 1)} of a worker decode about "
            f"{found.decoded:.0f} images/s, and its GPU trains on about {found.needed:.0f} (estimates{of})"
        )
        section = f"stage{found.stage}"
        if found.is_starved and getattr(config, section).decode == "worker":
            line += (
                f": the GPU waits for images. Set resources.cpus_per_worker to {found.enough_cpus}, or "
                f"{section}.decode to cluster and add nodes with CPUs"
            )
        notes.append(line)
    return notes


def _stage_memory(
    stage: Stage,
    blueprint: Blueprint,
    shape: Architecture,
    config: Config,
    *,
    parts: list[PartSize],
    with_activations: bool,
) -> StageMemory:
    from uniemo_ray.sizing.activations import estimate_activations  # torch's fake tensors take a while

    train = config.stage1 if stage == 1 else config.stage2
    gpus = config.resources.least_workers  # each then holds the most
    batch = -(-train.batch_size // gpus)
    at_once = min(train.micro_batch or batch, batch)
    kept: dict[bool, int | None] = {False: None, True: None}
    if with_activations:
        estimate = partial(estimate_activations, blueprint, shape, config, stage=stage, batch=at_once)
        kept = {with_zero3: estimate(with_zero3=with_zero3) for with_zero3 in kept}
    options = tuple(
        gpu_memory(
            _load(stage, config, parts, activations=kept[zero == 3]),
            zero_stage=zero,
            gpus=gpus,
        )
        for zero in ZERO_STAGES
    )
    return StageMemory(
        stage=stage, batch_per_gpu=batch, at_once=at_once, chosen=train.zero_stage, options=options
    )


def _load(stage: Stage, config: Config, parts: list[PartSize], *, activations: int | None) -> Load:
    """What DeepSpeed wraps: the network, and in stage 2 a denoiser that trains; the rest stays outside."""
    has_denoiser = stage == 2 and config.diffusion.denoiser != "frozen"
    beside = ("vae", "text encoders") if has_denoiser else ("denoiser", "vae", "text encoders")
    inside = [part for part in parts if part.name not in ("denoiser", *beside)]
    inside += [part for part in parts if has_denoiser and part.name == "denoiser"]
    trained = sum(part.stage1 if stage == 1 else part.stage2 for part in inside)
    half = 2 if config.diffusion.frozen_dtype != "fp32" else FP32
    width = {"vae": FP32, "text encoders": half, "denoiser": half}
    outside = sum(part.total * width[part.name] for part in parts if part.name in beside)
    return Load(
        trained=trained,
        frozen=sum(part.total for part in inside) - trained,
        outside=outside if stage == 2 else 0,
        activations=activations,
        is_averaged=(config.stage1 if stage == 1 else config.stage2).ema_decay is not None,
    )


def _warnings(memory: tuple[StageMemory, ...], limit: int, config: Config) -> list[str]:
    found = []
    for stage in memory:
        need = stage.options[stage.chosen].total
        if need > limit:
            found.append(
                f"stage {stage.stage} needs about {need / 1e9:.1f} GB on each GPU and there are "
                f"{limit / 1e9:.0f} GB: {_advice(stage, limit, config)}"
            )
    return found


def _advice(stage: StageMemory, limit: int, config: Config) -> str:
    """What makes a stage fit: passes of fewer images, another ZeRO stage, or less to keep of an image."""
    name = f"stage{stage.stage}"
    for zero in (stage.chosen, *(option.zero_stage for option in stage.options)):
        option = stage.options[zero]
        fitting = _fitting_images(option, stage.at_once, limit)
        ways = [f"--set {name}.micro_batch={fitting}"] if fitting < stage.at_once else []
        ways += [f"--set {name}.zero_stage={zero}"] if zero != stage.chosen else []
        if fitting:
            what = f"passes of {fitting} images" if fitting < stage.at_once else f"ZeRO {zero}"
            return f"{what} would fit ({' '.join(ways)})"
    train = config.stage1 if stage.stage == 1 else config.stage2
    ways = [] if train.gradient_checkpointing else [f"set {name}.gradient_checkpointing"]
    if stage.stage == 2 and config.diffusion.frozen_dtype == "fp32":
        ways.append("set diffusion.frozen_dtype to bf16 or fp16")
    return ", ".join([*ways, "take more GPUs, or take larger ones" if not ways else "or take larger GPUs"])


def _fitting_images(option: GpuMemory, at_once: int, limit: int) -> int:
    """The largest power of two of images at once that fits, or `at_once`; 0 if not one does.

    A little room is left over: activations grow nearly, but not quite, with the images.
    """
    room = round(0.95 * (limit - (option.total - option.activations)))
    if room < 0:
        return 0
    images = min(at_once, room * at_once // option.activations) if option.activations else at_once
    return images if images in (0, at_once) else 2 ** (images.bit_length() - 1)
