"""Time of a training step through Ray Train, against the same DeepSpeed loop started bare.

Two processes each, the same network, images, batches and DeepSpeed settings in the same run; the bare loop
has the images in memory, runs once before and once after Ray's, and the mean of both counts.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import ray
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from uniemo_ray.config import Config, load_config
from uniemo_ray.data.emosketch.rule import load_rule
from uniemo_ray.data.emosketch.write import to_png
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.tiny.renders import draw_renders
from uniemo_ray.training.parts import StageParts

WORKERS = 2
WARM_UP = 5
"""Steps of each run that are left out."""
LOG = "UNIEMO_BENCH_LOG"


class Timed(nn.Module):
    """Writes down when each training step starts."""

    def __init__(self, objective: nn.Module, log: str) -> None:
        super().__init__()
        self.objective = objective
        self.log = Path(log) / f"{os.getpid()}.txt"

    def forward(self, batch):
        if self.training:
            with self.log.open("a") as file:
                file.write(f"{time.time()}\n")
        return self.objective(batch)


def build(values: dict) -> StageParts:
    """Stage 1 with a clock in it; named by `train_stage(build=...)`."""
    from uniemo_ray.training.stage import build_stage

    parts = build_stage(values["stage"])
    return parts._replace(objective=Timed(parts.objective, values["log"]))


def make_settings(config: Config, log: Path) -> dict:
    """What `build` takes."""
    rule = load_rule()
    stage = {"stage": "understanding", "config": config.model_dump(mode="json")}
    return {"stage": {**stage, "scenes": rule.scenes, "objects": rule.objects}, "log": str(log)}


def make_rows(count: int) -> list[dict]:
    """Labelled pictures."""
    rule = load_rule()
    renders = draw_renders(range(count), seed=1, bare_share=0.0)
    return [
        {
            "image_id": f"image-{i}",
            "image": to_png(renders.pixels[i]),
            "emotion": EMOTIONS[i % len(EMOTIONS)],
            "scene": rule.scenes[renders.scenes[i]],
            "objects": [rule.objects[renders.objects[i]]],
        }
        for i in range(count)
    ]


def run_bare(rank: int, rows: list[dict], config: Config, log: Path) -> None:
    """One rank of a plain loop around DeepSpeed."""
    os.environ.update(LOCAL_RANK=str(rank), RANK=str(rank), WORLD_SIZE=str(WORKERS), DS_ACCELERATOR="cpu")
    import deepspeed

    from uniemo_ray.training.engine import deepspeed_config

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{log}/rendezvous", rank=rank, world_size=WORKERS)
    deepspeed.init_distributed(verbose=False)
    parts = build(make_settings(config, log))
    engine = deepspeed.initialize(
        model=parts.objective,
        optimizer=torch.optim.AdamW(parts.groups),
        config=deepspeed_config(config.stage1, WORKERS),
    )[0]
    mine, size = rows[rank::WORKERS], config.stage1.batch_size // WORKERS
    engine.train()
    for epoch in range(config.stage1.epochs):
        for start in range(0, len(mine), size):
            batch = parts.collate(to_columns(mine[start : start + size]), epoch=epoch, is_training=True)
            loss = engine(batch.tensors)["loss"]
            engine.backward(loss)
            engine.step()
            loss.item()
    dist.destroy_process_group()


def to_columns(rows: list[dict]) -> dict[str, np.ndarray]:
    """Rows as the numpy columns that Ray Data hands over."""
    columns = {name: np.empty(len(rows), dtype=object) for name in rows[0]}
    for i, row in enumerate(rows):
        for name, value in row.items():
            columns[name][i] = value
    return columns


def run_ray(rows: list[dict], config: Config, log: Path) -> None:
    """The same steps through `train_stage`."""
    from uniemo_ray.distributed.train import train_stage

    ray.init(address="local", num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    try:
        train_stage(
            stage="understanding",
            config=config,
            dataset=ray.data.from_items(rows, override_num_blocks=10),
            settings=make_settings(config, log),
            storage=str(log / "store"),
            name="bench",
            build="bench_training:build",
        )
    finally:
        ray.shutdown()


def step_seconds(log: Path) -> float:
    """Mean seconds from step to step, without warm-up and without the pauses between epochs."""
    gaps = [np.diff(np.loadtxt(path))[WARM_UP:] for path in log.glob("*.txt")]
    inside = [one[one < 3 * np.median(one)] for one in gaps]
    return float(np.mean([one.mean() for one in inside]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1280)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    stage = [f"stage1.epochs={options.epochs}", "stage1.checkpoint_every_s=1000000"]
    config = load_config(None, ["encoder.query_length=8", "stage1.batch_size=64", *stage])
    rows = make_rows(options.images)
    with tempfile.TemporaryDirectory() as scratch:
        logs = {name: Path(scratch) / name for name in ("before", "ray", "after")}
        for log in logs.values():
            log.mkdir()
        mp.spawn(run_bare, args=(rows, config, logs["before"]), nprocs=WORKERS)
        run_ray(rows, config, logs["ray"])
        mp.spawn(run_bare, args=(rows, config, logs["after"]), nprocs=WORKERS)
        before, through_ray, after = (step_seconds(log) for log in logs.values())
    bare = (before + after) / 2
    times = f"{through_ray:.3f} s through Ray Train, {bare:.3f} s bare ({before:.3f} and {after:.3f})"
    print(f"training step: {times}, ratio {bare / through_ray:.3f}")


if __name__ == "__main__":
    main()
