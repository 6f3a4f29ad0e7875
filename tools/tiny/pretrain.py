"""Rebuild the tiny base models from a seed: renders, judge, CLIP, autoencoder, denoiser, card.

Usage:
    ray job submit --working-dir . -- python -m tools.tiny.pretrain --work DIR --out DIR

Each stage is a Ray task that leaves its result in the work folder, so submitting again continues.
The shipped weights took about two and a half hours on two cores.
"""

import argparse
import json
import logging
import os
from dataclasses import fields
from pathlib import Path

import ray
import torch

from tools.tiny import build
from tools.tiny.renders import Renders, draw_renders, join_renders

RENDERS_PER_TASK = 500


@ray.remote(num_cpus=1)
def draw_block(indices: range, *, seed: int, bare_share: float) -> Renders:
    """One block of renders."""
    return draw_renders(indices, seed=seed, bare_share=bare_share)


@ray.remote
def run_stage(name: str, work: Path, config: build.BuildConfig, threads: int) -> None:
    """One training stage, on all CPUs it was given."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)
    stage = getattr(build, f"build_{name}")
    stage(work, config) if name not in {"tokenizers", "latents"} else stage(work)


def draw_all(path: Path, *, start: int, count: int, seed: int, bare_share: float) -> None:
    """Renders of a range of indices, drawn block by block in parallel, into one file."""
    if path.exists():
        return
    starts = range(start, start + count, RENDERS_PER_TASK)
    blocks = [range(i, min(i + RENDERS_PER_TASK, start + count)) for i in starts]
    tasks = [draw_block.remote(block, seed=seed, bare_share=bare_share) for block in blocks]
    join_renders(ray.get(tasks)).save(path)


def parse_arguments() -> argparse.Namespace:
    """Command line: folders and, for trials, smaller sizes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for renders and stage results")
    parser.add_argument("--out", type=Path, required=True, help="folder for the packed weights")
    for field in fields(build.BuildConfig):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=int, default=field.default)
    return parser.parse_args()


def main() -> None:
    """Draw, train stage by stage, pack and measure."""
    arguments = parse_arguments()
    config = build.BuildConfig(**{f.name: getattr(arguments, f.name) for f in fields(build.BuildConfig)})
    work, out = arguments.work.resolve(), arguments.out.resolve()
    work.mkdir(parents=True, exist_ok=True)
    ray.init()
    draw_all(work / "train.npz", start=0, count=config.renders, seed=config.seed, bare_share=0.15)
    held = {"start": build.HELD_OUT_START, "count": config.held_out}
    draw_all(work / "held.npz", **held, seed=config.seed, bare_share=0.0)
    threads = os.cpu_count() or 1
    for name in ("tokenizers", "recogniser", "clip", "vae", "latents", "decoder", "diffusion", "vague_words"):
        ray.get(run_stage.options(num_cpus=threads).remote(name, work, config, threads))
    print(json.dumps(build.pack(work, out, config)["quality"], indent=2))


if __name__ == "__main__":
    main()
