"""Time of a training step through Ray Train, against the same DeepSpeed loop started bare.

Two processes each, the same network, images, batches and DeepSpeed settings. Both are up all the time and
take turns, epoch by epoch, because these machines are faster in one minute than in the next; whoever waits
sleeps. The bare loop has the images in memory.

What saving takes of the time: python benchmarks/bench_training.py --saving
"""

import argparse
import os
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from benchmarks.checkpoint_share import print_shares
from tools.tiny.renders import draw_renders
from uniemo_ray.data.emosketch.rule import load_rule
from uniemo_ray.data.emosketch.write import to_png
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.settings_file import load_config
from uniemo_ray.training.parts import StageBuilder, StageParts
from uniemo_ray.training.schedule import steps_per_epoch
from uniemo_ray.training.stage_settings import StageSettings

WORKERS = 2
BATCH = 64
TEAMS = ("bare", "ray")
# Ray's workers stand back (nice 15) by default; whatever else runs on the machine would slow them alone.
os.environ.setdefault("RAY_worker_niceness", "0")


class Timed(nn.Module):
    """Notes the time of each training step and gives way to the other team between epochs."""

    def __init__(self, objective: nn.Module, log: str, *, team: str, steps_per_epoch: int) -> None:
        super().__init__()
        self.objective = objective
        self.log, self.team, self.steps_per_epoch = Path(log), team, steps_per_epoch
        self.times = Path(log) / f"{team}-{os.getpid()}.txt"
        self.step = 0

    def forward(self, batch):
        if self.training:
            epoch, step = divmod(self.step, self.steps_per_epoch)
            if step == 0:
                self._wait_for_turn(epoch)
            with self.times.open("a") as file:
                file.write(f"{epoch} {time.time()}\n")
            self.step += 1
        return self.objective(batch)

    def give_way(self, epoch: int) -> None:
        """Say that this rank is through with an epoch, its checkpoint and what it reads for the next."""
        (self.log / f"{self.team}-{epoch}-{os.getpid()}.done").touch()

    def _wait_for_turn(self, epoch: int) -> None:
        """The bare team begins an epoch when Ray's has ended the one before, and Ray's after it."""
        if epoch:
            self.give_way(epoch - 1)
        other = TEAMS[self.team == "bare"]
        before = epoch if self.team == "ray" else epoch - 1
        while before >= 0 and len(list(self.log.glob(f"{other}-{before}-*.done"))) < WORKERS:
            time.sleep(0.02)


def build(settings: StageSettings, *, log: str, team: str, steps_per_epoch: int) -> StageParts:
    """Stage 1 with a clock in it."""
    from uniemo_ray.training.stage import build_stage

    parts = build_stage(settings)
    return parts._replace(objective=Timed(parts.objective, log, team=team, steps_per_epoch=steps_per_epoch))


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


def run_bare(rank: int, rows: list[dict], settings: StageSettings, make: StageBuilder, log: Path) -> None:
    """One rank of a plain loop around DeepSpeed."""
    os.environ.update(LOCAL_RANK=str(rank), RANK=str(rank), WORLD_SIZE=str(WORKERS), DS_ACCELERATOR="cpu")
    import deepspeed

    from uniemo_ray.training.buckets import plan_buckets
    from uniemo_ray.training.deepspeed_settings import deepspeed_config

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{log}/rendezvous", rank=rank, world_size=WORKERS)
    deepspeed.init_distributed(verbose=False)
    parts, config = make(settings), settings.config
    trained = sum(p.numel() for group in parts.groups for p in group["params"])
    buckets = plan_buckets(trained, zero_stage=config.stage1.zero_stage, has_gpu=False)
    engine = deepspeed.initialize(
        model=parts.objective,
        optimizer=torch.optim.AdamW(parts.groups),
        config=deepspeed_config(config.stage1, WORKERS, precision="fp32", buckets=buckets),
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
    parts.objective.give_way(epoch)
    dist.destroy_process_group()


def to_columns(rows: list[dict]) -> dict[str, np.ndarray]:
    """Rows as the columns that a batch is made of."""
    columns = {name: np.empty(len(rows), dtype=object) for name in rows[0]}
    for i, row in enumerate(rows):
        for name, value in row.items():
            columns[name][i] = value
    return columns


def run_ray(rows: list[dict], settings: StageSettings, make: StageBuilder, log: Path) -> None:
    """The same steps through `train_stage`."""
    from uniemo_ray.distributed.training.train_stage import train_stage
    from uniemo_ray.store.filesystem import open_store
    from uniemo_ray.store.shards import commit_shard
    from uniemo_ray.training.loading.pieces import shard_rows

    shards = open_store(str(log / "shards"))
    for number, start in enumerate(range(0, len(rows), 64)):
        table = pa.Table.from_pylist(rows[start : start + 64])
        commit_shard(shards, f"train/part-{number:05d}", table, plan_hash="bench")
    ray.init(address="local", num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    try:
        train_stage(
            settings=settings,
            data=shard_rows([(shards, "train")], columns=list(rows[0])),
            storage=str(log / "store"),
            name="bench",
            build=make,
        )
    finally:
        ray.shutdown()


def step_seconds(log: Path, team: str) -> np.ndarray:
    """Seconds from step to step within each epoch but the first, (ranks, epochs, steps - 1)."""
    ranks = []
    for path in log.glob(f"{team}-*.txt"):
        epochs, times = np.loadtxt(path).T
        ranks.append([np.diff(times[epochs == epoch]) for epoch in range(1, int(epochs.max()) + 1)])
    return np.array(ranks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--saving", action="store_true", help="measure checkpoints instead of steps")
    parser.add_argument("--megabytes", type=int, default=300, help="size of such a checkpoint")
    parser.add_argument("--steps", type=int, default=600, help="steps that are trained meanwhile")
    options = parser.parse_args()
    if options.saving:
        with tempfile.TemporaryDirectory() as scratch:
            print_shares(Path(scratch), megabytes=options.megabytes, steps=options.steps)
        return
    rows = make_rows(options.images // BATCH * BATCH)
    stage = [f"stage1.epochs={options.epochs}", "stage1.checkpoint_every_s=1000000"]
    config = load_config(None, ["encoder.query_length=8", f"stage1.batch_size={BATCH}", *stage])
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch)
        steps = steps_per_epoch(len(rows), batch_size=BATCH)
        rule = load_rule()
        settings = StageSettings(
            stage="understanding", config=config, scenes=rule.scenes, objects=rule.objects
        )
        bare, through_ray = (partial(build, log=str(log), team=t, steps_per_epoch=steps) for t in TEAMS)
        bare_loop = mp.spawn(run_bare, args=(rows, settings, bare, log), nprocs=WORKERS, join=False)
        run_ray(rows, settings, through_ray, log)
        bare_loop.join()
        times = {team: step_seconds(log, team).mean(axis=(0, 2)) for team in TEAMS}
    ratios = times["bare"] / times["ray"]
    pairs = ", ".join(f"{ratio:.3f}" for ratio in ratios)
    means = f"{times['ray'].mean():.3f} s through Ray Train, {times['bare'].mean():.3f} s bare"
    print(f"training step: {means}; ratio {np.median(ratios):.3f}, median of {pairs}")


if __name__ == "__main__":
    main()
