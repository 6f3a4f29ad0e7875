"""How much of the time saving takes: uploads while training stands still or goes on, and the interval chosen.

The network is one matrix whose weights and AdamW state make a checkpoint of the size that is asked for.
"""

import json
import time
from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray
import torch
from ray.train import CheckpointUploadMode
from torch import Tensor, nn

from uniemo_ray.settings_file import load_config
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import commit_shard
from uniemo_ray.training.batches import Batch
from uniemo_ray.training.loading.pieces import shard_rows
from uniemo_ray.training.parts import StageParts
from uniemo_ray.training.stage_settings import StageSettings

BYTES_A_PARAMETER = 12
BATCH = 8
EVERY_S = 3.0


class Matrix(nn.Module):
    """A square matrix that learns to be the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Linear(width, width, bias=False)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        x = batch["x"].repeat(1, self.net.in_features)
        return {"loss": (self.net(x) - x).pow(2).mean()}


def collate(raw: Mapping[str, np.ndarray], *, epoch: int, is_training: bool) -> Batch:
    """One number for each image."""
    return Batch(
        {"x": torch.tensor(np.stack(raw["x"]).astype(np.float32))}, [str(name) for name in raw["image_id"]]
    )


def build(settings: StageSettings, *, log: str, megabytes: int, is_sync: bool) -> StageParts:
    """The matrix, and a clock around every checkpoint of this process."""
    from uniemo_ray.distributed.training.checkpoints import Checkpoints

    save, report = Checkpoints.save, ray.train.report

    def timed_save(self, *args) -> None:
        started = time.time()
        save(self, *args)
        if self.engine.rank == 0:
            with (Path(log) / "saves.jsonl").open("a") as file:
                file.write(json.dumps([started, time.time()]) + "\n")

    def report_and_wait(*args, **options) -> None:
        report(*args, **{**options, "checkpoint_upload_mode": CheckpointUploadMode.SYNC})

    Checkpoints.save = timed_save
    if is_sync:
        ray.train.report = report_and_wait
    net = Matrix(int((megabytes * 1e6 / BYTES_A_PARAMETER) ** 0.5))
    groups = [{"name": "all", "params": list(net.parameters()), "lr": 1e-4, "weight_decay": 0.0}]
    return StageParts(net, groups, collate, {"net": nn.Module()})


def measure(scratch: Path, *, megabytes: int, steps: int, share: float, is_sync: bool) -> str:
    """Train one epoch of so many steps, and say what saving took of it."""
    from uniemo_ray.distributed.training.train_stage import train_stage

    rows = [{"image_id": f"image-{i}", "x": [1.0]} for i in range(steps * BATCH)]
    options = [
        "epochs=1",
        f"batch_size={BATCH}",
        f"checkpoint_every_s={EVERY_S}",
        f"checkpoint_share={share}",
    ]
    config = load_config(None, [f"stage1.{option}" for option in options])
    scratch.mkdir()
    shards = open_store(str(scratch / "shards"))
    commit_shard(shards, "train/part-00000", pa.Table.from_pylist(rows), plan_hash="bench")
    train_stage(
        settings=StageSettings(stage="understanding", config=config),
        data=shard_rows([(shards, "train")], columns=["image_id", "x"]),
        storage=str(scratch / "store"),
        name="bench",
        build=partial(build, log=str(scratch), megabytes=megabytes, is_sync=is_sync),
    )
    saves = [json.loads(line) for line in (scratch / "saves.jsonl").read_text().splitlines()]
    inside = saves[:-1]  # the last one ends the stage
    held = [end - start for start, end in inside]
    apart = [later[0] - earlier[1] for earlier, later in pairwise(inside)]
    periods = sum(held[:-1]) + sum(apart)
    return (
        f"checkpoint of {megabytes} MB, {'sync' if is_sync else 'async'}, checkpoint_share {share}: "
        f"{len(held)} saves held the workers {np.median(held):.2f} s each (median), {np.median(apart):.1f} s "
        f"apart: {100 * sum(held[:-1]) / periods:.1f} % of the time"
    )


def print_shares(scratch: Path, *, megabytes: int, steps: int) -> None:
    """Sync against async without a limit, then with the default limit."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        for number, (share, is_sync) in enumerate([(1.0, True), (1.0, False), (0.03, True), (0.03, False)]):
            folder = scratch / str(number)
            print(measure(folder, megabytes=megabytes, steps=steps, share=share, is_sync=is_sync), flush=True)
    finally:
        ray.shutdown()
