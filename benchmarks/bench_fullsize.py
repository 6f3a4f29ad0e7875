"""One training step at the paper's size on a CPU: seconds, peak memory, images a second. Random weights.

Real architectures, the real objectives, DeepSpeed underneath; each part runs in a process of its own, whose
peak memory is its own:

    stage1     CLIP L/14, batch 8
    stage2     Stable Diffusion 1.5 with CLIP L/14, 512 px, batch 2, gradient checkpointing
    batching   the same at 256 px, batch 1 against batch 8
    levers     what makes stage 2 fast, one after the other: CLIP B/32, Stable Diffusion 1.5, denoiser of
               half width, 256 px
    sdxl       SDXL reduced: a fifth of its denoiser's width, two layers in each text encoder, 32 channels
               in its VAE; 1024 px, batch 2
    sdxl-plan  SDXL at full size on torch's meta device: table of parameters and memory, nothing is computed

Every step is made twice, and the second is timed. In fp32 on two cores all of it takes a quarter to half an
hour, counted from operations; `--parts stage2` runs one part, `--scale small` everything small, to try the
script itself.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from typing import NamedTuple

import torch
from rich.console import Console

from benchmarks.random_models import input_side, make_batch, make_diffusion, make_net, reduced
from uniemo_ray.config import Config
from uniemo_ray.settings_file import load_config
from uniemo_ray.sizing.architectures import SD15, SDXL, Architecture

PARTS = ("stage1", "stage2", "batching", "levers", "sdxl", "sdxl-plan")


class Scale(NamedTuple):
    """What `full` and `small` mean."""

    clip: str
    size_px: int
    stage1_batch: int
    stage2_batch: int
    divide: int
    """Divisor of the denoiser's width."""
    batching_px: int
    many: int
    """The larger batch of the batching part."""


SCALES = {
    "full": Scale("ViT-L-14-quickgelu", 512, 8, 2, 1, 256, 8),
    "small": Scale("tiny", 64, 2, 2, 5, 64, 2),
}


def make_config(scale: Scale, **stage2: object) -> Config:
    options = [f"stage2.{name}={value}" for name, value in stage2.items()]
    return load_config(
        None,
        [f"encoder.clip={scale.clip}", f"diffusion.size_px={scale.size_px}", "resources.workers=1", *options],
    )


def timed(engine, batch, *, steps: int = 1) -> float:
    """Seconds of some steps after a first one, which builds DeepSpeed's buffers."""
    engine.step(batch)
    start = time.perf_counter()
    for _ in range(steps):
        engine.step(batch)
    return (time.perf_counter() - start) / steps


def run_stage1(scale: Scale) -> dict[str, object]:
    from uniemo_ray.training.engine import Engine
    from uniemo_ray.training.objectives import UnderstandingObjective

    config = make_config(scale)
    train = config.stage1.model_copy(update={"batch_size": scale.stage1_batch})
    net, groups = make_net(config, 768)
    engine = Engine(UnderstandingObjective(net, config.losses), groups(1), train=train, total_steps=9, seed=0)
    seconds = timed(engine, make_batch(input_side(scale.clip), scale.stage1_batch))
    return {
        "what": f"stage 1, {scale.clip}, batch {scale.stage1_batch}",
        "seconds": seconds,
        "images": scale.stage1_batch,
    }


def joint_engine(
    scale: Scale, *, batch: int, shape: Architecture | None = None, is_checkpointed: bool = False
):
    from uniemo_ray.models.speed import tune_training
    from uniemo_ray.training.engine import Engine
    from uniemo_ray.training.joint_objective import JointObjective

    config = make_config(scale, gradient_checkpointing=is_checkpointed)
    train = config.stage2.model_copy(update={"batch_size": batch})
    shape = shape or reduced(SD15, scale.divide)
    net, groups = make_net(config, shape.text_widths)
    diffusion = make_diffusion(shape)
    tune_training(net, diffusion.denoiser, config.stage2)
    objective = JointObjective(net, diffusion, config.losses, prompt=config.diffusion.prompt)
    return Engine(objective, groups(2), train=train, total_steps=99, seed=0)


def run_stage2(scale: Scale) -> dict[str, object]:
    engine = joint_engine(scale, batch=scale.stage2_batch, is_checkpointed=True)
    seconds = timed(engine, make_batch(input_side(scale.clip), scale.stage2_batch, size_px=scale.size_px))
    name, size = reduced(SD15, scale.divide).name, f"{scale.size_px} px, batch {scale.stage2_batch}"
    what = f"stage 2, {scale.clip} and {name}, checkpointed, {size}"
    return {"what": what, "seconds": seconds, "images": scale.stage2_batch}


def run_batching(scale: Scale, batch: int) -> dict[str, object]:
    engine = joint_engine(scale, batch=batch, is_checkpointed=True)
    steps = max(1, scale.many // batch)
    seconds = timed(engine, make_batch(input_side(scale.clip), batch, size_px=scale.batching_px), steps=steps)
    what = f"stage 2 at {scale.batching_px} px, checkpointed, batch {batch}"
    return {"what": what, "seconds": seconds, "images": batch}


class Lever(NamedTuple):
    """One way to run stage 2; each of `LEVERS` has what those before it have."""

    what: str
    is_batched: bool = True
    has_latents: bool = True
    denoiser: str = "frozen"
    has_frozen_tower: bool = True
    is_channels_last: bool = False
    is_checkpointed: bool = False


LEVERS = (
    Lever("one image a step", is_batched=False, has_latents=False, denoiser="full", has_frozen_tower=False),
    Lever("batched", has_latents=False, denoiser="full", has_frozen_tower=False),
    Lever("latents computed before", denoiser="full", has_frozen_tower=False),
    Lever("denoiser frozen", has_frozen_tower=False),
    Lever("tower frozen"),
    Lever("channels last", is_channels_last=True),
    Lever("(with gradient checkpointing)", is_channels_last=True, is_checkpointed=True),
)


def run_lever(scale: Scale, number: int) -> dict[str, object]:
    """Stage 2 with one lever more than the run before."""
    from uniemo_ray.models.diffusion import train_denoiser
    from uniemo_ray.models.speed import tune_diffusion, tune_training
    from uniemo_ray.models.uniemo import parameter_groups, set_trainable
    from uniemo_ray.training.engine import Engine
    from uniemo_ray.training.joint_objective import JointObjective

    lever, is_full = LEVERS[number], scale.divide == 1
    clip, batch = (
        ("ViT-B-32-quickgelu" if is_full else scale.clip),
        (scale.many if LEVERS[number].is_batched else 1),
    )
    small = reduced(SD15, 2 * scale.divide)
    shape = replace(small, vae=SD15.vae, text_encoders=SD15.text_encoders) if is_full else small
    options = {"stage2.batch_size": batch, "stage2.gradient_checkpointing": lever.is_checkpointed}
    options |= {"encoder.clip": clip, "diffusion.channels_last": lever.is_channels_last}
    config = load_config(
        None, ["resources.workers=1", *(f"{name}={value}" for name, value in options.items())]
    )
    net, _ = make_net(config, shape.text_widths)
    diffusion = tune_diffusion(make_diffusion(shape), config.diffusion)
    tune_training(net, diffusion.denoiser, config.stage2)
    set_trainable(net, stage=2, tower="frozen" if lever.has_frozen_tower else "train")
    trained = train_denoiser(diffusion.denoiser, mode=lever.denoiser, lora_rank=config.diffusion.lora_rank)
    groups = parameter_groups(net, config.stage2.rates, config.stage2.weight_decay)
    if trained:
        groups.append({"name": "denoiser", "params": trained, "lr": 1e-5, "weight_decay": 0.0})
    objective = JointObjective(net, diffusion, config.losses, prompt=config.diffusion.prompt)
    data = make_batch(input_side(clip), batch, size_px=None if lever.has_latents else scale.batching_px)
    if lever.has_latents:
        side = scale.batching_px // SD15.pixels_per_latent
        data["latents"] = torch.randn(batch, int(SD15.denoiser["in_channels"]), side, side)
    engine = Engine(objective, groups, train=config.stage2, total_steps=99, seed=0)
    seconds = timed(engine, data, steps=2 if lever.is_batched else 4)
    return {"what": f"stage 2, batch {batch}: {lever.what}", "seconds": seconds, "images": batch}


def run_sdxl(scale: Scale) -> dict[str, object]:
    """The whole of stage 2 through both text encoders, all parts reduced."""
    shape, batch, side = reduced(SDXL, 5), 2, 2 * scale.size_px
    engine = joint_engine(scale, batch=batch, shape=shape, is_checkpointed=True)
    seconds = timed(engine, make_batch(input_side(scale.clip), batch, size_px=side))
    return {
        "what": f"stage 2, {shape.name}, checkpointed, {side} px, batch {batch}",
        "seconds": seconds,
        "images": batch,
    }


def run_sdxl_plan(scale: Scale) -> dict[str, object]:
    """Parameter and memory table of SDXL's stage 2 at full size, from the meta device."""
    from uniemo_ray.report.plan_table import plan_tables
    from uniemo_ray.sizing.plan import make_plan

    is_full, start = scale.divide == 1, time.perf_counter()
    options = {
        "encoder.clip": scale.clip,
        "resources.workers": 8,
        "diffusion.size_px": 1024,
        "stage2.batch_size": 64,
        "stage2.zero_stage": 2,
        "stage2.gradient_checkpointing": "true",
        "stage2.precision": "bf16",
    }
    config = load_config(None, [f"{name}={value}" for name, value in options.items()])
    plan = make_plan(config, gpu_memory_bytes=48 * 10**9, architecture="sdxl", with_activations=is_full)
    Console(width=100).print(plan_tables(plan))
    what = "stage 2 of SDXL at full size, counted only"
    return {"what": what, "seconds": time.perf_counter() - start, "images": 0}


def measure(part: str, scale_name: str, *extra: str) -> dict[str, float]:
    """One part in a process of its own; prints what that prints, and its row."""
    command = [sys.executable, __file__, "--scale", scale_name, "--run", part, *extra]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    *shown, last = done.stdout.splitlines()
    row = json.loads(last)
    rate = row["images"] / row["seconds"]
    speed = f"{row['seconds']:.2f} s a step, {rate:.3f} images/s" if rate else f"{row['seconds']:.2f} s"
    print(*shown, f"{row['what']}: {speed}, peak {row['peak_gb']:.2f} GB", sep="\n", flush=True)
    return {"peak_gb": row["peak_gb"], "rate": rate}


def measure_batching(scale: Scale, scale_name: str) -> list[dict[str, float]]:
    """The same work one by one and many at once."""
    one, many = (measure("batching", scale_name, "--number", str(size)) for size in (1, scale.many))
    ratio = many["rate"] / one["rate"]
    print(f"batching: {scale.many} images at once are {ratio:.2f} times as fast as one by one", flush=True)
    return [one, many]


def measure_levers(scale_name: str) -> list[dict[str, float]]:
    """Stage 2 with one lever after the other, and how much faster than with none."""
    rows = []
    for number, lever in enumerate(LEVERS):
        rows.append(measure("levers", scale_name, "--number", str(number)))
        ratio = rows[-1]["rate"] / rows[0]["rate"]
        print(f"levers: {lever.what}: {ratio:.2f} times as fast as {LEVERS[0].what}", flush=True)
    return rows


def run_one(part: str, scale: Scale, number: int) -> None:
    """What the child process does."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    torch.manual_seed(0)
    runs = {"stage1": run_stage1, "stage2": run_stage2, "sdxl": run_sdxl, "sdxl-plan": run_sdxl_plan}
    numbered = {"batching": run_batching, "levers": run_lever}
    row = numbered[part](scale, number) if part in numbered else runs[part](scale)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(json.dumps({**row, "peak_gb": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--limit-gb", type=float, default=20.0, help="a larger peak ends with exit code 1")
    parser.add_argument("--run", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--number", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    scale = SCALES[options.scale]
    if options.run:
        run_one(options.run, scale, options.number)
        return
    rows = []
    for part in options.parts:
        if part == "batching":
            rows += measure_batching(scale, options.scale)
        elif part == "levers":
            rows += measure_levers(options.scale)
        else:
            rows.append(measure(part, options.scale))
    if max(row["peak_gb"] for row in rows) > options.limit_gb:
        sys.exit(f"error: a part took more than {options.limit_gb:g} GB")


if __name__ == "__main__":
    main()
