"""The parts of `bench_gpu.py`: what is built, and what the two sides of a comparison do."""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.bare_loops import bare_generation, bare_scoring, bare_stage1, bare_stage2
from benchmarks.device import join_group
from benchmarks.gpu_meter import Busy, Memory, Meter, Work
from benchmarks.random_models import (
    input_side,
    make_batch,
    make_clip,
    make_diffusion,
    make_heads,
    make_net,
    make_painter,
)
from uniemo_ray.config import Config
from uniemo_ray.models.speed import DTYPES
from uniemo_ray.settings_file import load_config
from uniemo_ray.sizing.architectures import find_architecture


class Scale(NamedTuple):
    """Sizes of everything."""

    clip: str
    architecture: str
    size_px: int
    batches: tuple[int, int]
    """Images of a step of stage 1 and of stage 2."""
    micro_batch: int
    images: int
    """Images that are generated, and scored, by one call."""
    steps: int
    """Of the sampler."""
    repeats: int
    turns: int


FULL = Scale("ViT-L-14-quickgelu", "sd15", 512, (32, 8), 8, 32, 50, 5, 3)
TINY = Scale("tiny", "tiny", 32, (4, 2), 2, 4, 2, 1, 1)


class Row(NamedTuple):
    """What one part found; rates are images a second."""

    part: str
    what: str
    ours: float
    bare: float
    ratio: float
    busy: float
    busy_by: str
    planned_bytes: int | None
    """By `uniemo plan`; None for parts of which it says nothing."""
    used_bytes: int | None
    """None on a CPU."""


class Bench(NamedTuple):
    """What the parts have in common."""

    scale: Scale
    device: str
    precision: str
    checkpointed: bool

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.precision]

    def config(self) -> Config:
        batches = zip(("stage1", "stage2"), self.scale.batches, strict=True)
        options = {f"{stage}.batch_size": batch for stage, batch in batches}
        options |= {f"{stage}.precision": self.precision for stage in ("stage1", "stage2")}
        options |= {
            "encoder.clip": self.scale.clip,
            "diffusion.size_px": self.scale.size_px,
            "diffusion.steps": self.scale.steps,
            "diffusion.frozen_dtype": self.precision,
            "generation.micro_batch": self.scale.micro_batch,
            "stage2.gradient_checkpointing": str(self.checkpointed).lower(),
            "resources.workers": 1,
        }
        return load_config(None, [f"{name}={value}" for name, value in options.items()])

    def row(
        self,
        part: str,
        what: str,
        images: int,
        *,
        ours: Work,
        bare: Work,
        planned: int | None = None,
        memory: Memory | None = None,
    ) -> Row:
        """Measure both sides."""
        meter, scale = Meter(self.device), self.scale
        pair = meter.compare(ours, bare, repeats=scale.repeats, turns=scale.turns)
        busy: Busy = meter.busy(ours, scale.repeats)
        used = None if memory is None else memory.total
        rates = (images / pair.ours, images / pair.bare, pair.ratio)
        return Row(part, what, *rates, busy.share, busy.by, planned, used)


def planned_bytes(config: Config, stage: int, architecture: str) -> int:
    """What `uniemo plan` says of one GPU."""
    from uniemo_ray.sizing.plan import make_plan

    memory = make_plan(config, gpu_memory_bytes=10**12, architecture=architecture).memory[stage - 1]
    return memory.options[memory.chosen].total


def run_stage1(bench: Bench) -> Row:
    from uniemo_ray.training.engine import Engine
    from uniemo_ray.training.objectives import UnderstandingObjective

    scale, config, count = bench.scale, bench.config(), bench.scale.batches[0]
    width = sum(find_architecture(scale.architecture).text_widths)
    net, groups = make_net(config, width)
    objective = UnderstandingObjective(net, config.losses)
    engine = Engine(objective, groups(1), train=config.stage1, total_steps=10_000, seed=0)
    batch = pinned(make_batch(input_side(scale.clip), count), bench.device)
    ours = partial(engine.step, batch)
    memory = Meter(bench.device).memory(ours)
    bare = bare_stage1(make_clip(scale.clip), batch, device=bench.device, dtype=bench.dtype)
    planned = planned_bytes(config, 1, scale.architecture)
    what = f"{scale.clip}, batch {count}, {bench.precision}"
    return bench.row("stage1", what, count, ours=ours, bare=bare, planned=planned, memory=memory)


def run_stage2(bench: Bench) -> Row:
    from uniemo_ray.models.speed import tune_diffusion, tune_training
    from uniemo_ray.training.engine import Engine
    from uniemo_ray.training.joint_objective import JointObjective

    scale, config, count = bench.scale, bench.config(), bench.scale.batches[1]
    diffusion = make_diffusion(find_architecture(scale.architecture), device=bench.device).to(bench.device)
    tune_diffusion(diffusion, config.diffusion)
    net, groups = make_net(config, diffusion.text_widths)
    tune_training(net, diffusion.denoiser, config.stage2)
    objective = JointObjective(net, diffusion, config.losses, prompt=config.diffusion.prompt)
    engine = Engine(objective, groups(2), train=config.stage2, total_steps=10_000, seed=0)
    batch = pinned(make_batch(input_side(scale.clip), count, size_px=scale.size_px), bench.device)
    ours = partial(engine.step, batch)
    memory = Meter(bench.device).memory(ours)
    options = {"device": bench.device, "dtype": bench.dtype, "is_checkpointed": bench.checkpointed}
    bare = bare_stage2(make_clip(scale.clip), diffusion, batch, **options)
    planned = planned_bytes(config, 2, scale.architecture)
    what = f"{scale.clip} and {scale.architecture}, {scale.size_px} px, batch {count}, {bench.precision}"
    return bench.row("stage2", what, count, ours=ours, bare=bare, planned=planned, memory=memory)


def run_generation(bench: Bench) -> Row:
    from uniemo_ray.feedback.plan import PlannedImages
    from uniemo_ray.inference.generator import ImageGenerator
    from uniemo_ray.models.speed import tune_diffusion

    scale, config = bench.scale, bench.config()
    diffusion = make_diffusion(find_architecture(scale.architecture), device=bench.device).to(bench.device)
    sampler = {"steps": scale.steps, "guidance": config.diffusion.guidance, "size_px": scale.size_px}
    paint = bare_generation(diffusion, count=scale.micro_batch, dtype=bench.dtype, **sampler)
    tune_diffusion(diffusion, config.diffusion)
    net, _ = make_net(config, diffusion.text_widths)
    painter = make_painter(net, diffusion, device=bench.device)
    generator = ImageGenerator(painter, threads=1, fingerprint="random")
    plan = PlannedImages(
        round_=1,
        kind="emotion",
        per_emotion=-(-scale.images // 8),
        seed=0,
        model="random",
        diffusion=config.diffusion,
        generation=config.generation,
    ).table.slice(0, scale.images)
    columns = {name: plan[name].to_numpy(zero_copy_only=False) for name in plan.column_names}

    def bare() -> None:
        for _ in range(scale.images // scale.micro_batch):
            paint()

    what = f"{scale.architecture}, {scale.size_px} px, {scale.steps} steps, micro-batch {scale.micro_batch}, "
    return bench.row(
        "generation", what + bench.precision, scale.images, ours=partial(generator, columns), bare=bare
    )


def run_scoring(bench: Bench) -> Row:
    from uniemo_ray.emotions import EMOTIONS
    from uniemo_ray.inference.provenance import encode_png
    from uniemo_ray.inference.scorer import Scorer

    scale = bench.scale
    clip = make_clip(scale.clip)
    rng, side = np.random.default_rng(0), scale.size_px
    images = [encode_png(rng.integers(0, 256, (side, side, 3), np.uint8), {}) for _ in range(scale.images)]
    heads = make_heads(int(clip.model.visual.output_dim))
    scorer = Scorer(clip, heads, micro_batch=scale.micro_batch, device=bench.device)
    columns = {
        "image_id": np.array([f"image-{i}" for i in range(scale.images)], dtype=object),
        "emotion": np.array([EMOTIONS[i % 8] for i in range(scale.images)], dtype=object),
        "image": np.array([*images, None], dtype=object)[:-1],
        "reason": np.full(scale.images, None, dtype=object),
    }
    bare = bare_scoring(clip, images, batch=scale.micro_batch, device=bench.device)
    what = f"{scale.clip}, {side} px, batch {scale.micro_batch}, fp32"
    return bench.row("scoring", what, scale.images, ours=partial(scorer, columns), bare=bare)


RUNS = {"stage1": run_stage1, "stage2": run_stage2, "generation": run_generation, "scoring": run_scoring}


def pinned(batch: dict[str, torch.Tensor], device: str) -> dict[str, torch.Tensor]:
    """In memory that a GPU copies from by itself."""
    return {name: t.pin_memory() for name, t in batch.items()} if device == "cuda" else batch


def run_part(part: str, bench: Bench) -> Row:
    """Build one part and measure it."""
    torch.manual_seed(0)
    if bench.device == "cuda":  # of some CPUs it would change the arithmetic
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    if part.startswith("stage"):
        join_group(bench.device)
    return RUNS[part](bench)
