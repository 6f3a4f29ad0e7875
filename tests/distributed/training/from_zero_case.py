"""A stage whose rows are larger than an object store, for a cluster that has no machine yet; its driver."""

import json
import logging
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray

from tests.distributed.pool_case import here
from tests.distributed.training.train_case import LoggingCollate, build, rows
from tests.training.loading.shards import commit_rows
from uniemo_ray.config import Config
from uniemo_ray.distributed.training.train_stage import train_stage
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.training.batches import Batch
from uniemo_ray.training.loading.pieces import shard_rows
from uniemo_ray.training.parts import StageParts
from uniemo_ray.training.stage_settings import StageSettings

NUMBERS = 20_000
"""Of a row: 160 kB, of which no model reads more than the first four."""


class FirstFour(LoggingCollate):
    """Batches of the beginnings of rows."""

    def __call__(self, raw: Mapping[str, Any], *, epoch: int, is_training: bool) -> Batch:
        short = [np.asarray(x)[:4] for x in raw["x"]]
        return super().__call__({**raw, "x": short}, epoch=epoch, is_training=is_training)


def build_and_tell(settings: StageSettings, *, log: str) -> StageParts:
    parts = build(settings, log=log)
    (Path(log) / f"pool-of-{ray.train.get_context().get_world_rank()}").write_text(here())
    collate: Any = FirstFour(log, None)
    return StageParts(parts.objective, parts.groups, collate, parts.exports)


def main() -> None:
    """Train; the last line of the output tells how it went."""
    folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    count = settings["data"]["sketch_train"]
    rng = np.random.default_rng(0)
    long = [{**row, "x": [*row["x"], *rng.normal(size=NUMBERS).tolist()]} for row in rows(count)]
    store = open_store(str(folder / "shards"))
    commit_rows(store, long, per_shard=50, prefix="train")
    (folder / "log").mkdir()
    ray.init()
    result = train_stage(
        settings=StageSettings(stage="understanding", config=Config.model_validate(settings)),
        data=shard_rows([(store, "train")], columns=["image_id", "x"]),
        storage=str(folder / "storage"),
        name="tiny",
        build=partial(build_and_tell, log=str(folder / "log")),
    )
    print(json.dumps({"images": result.images, "attempts": result.attempts}), flush=True)


if __name__ == "__main__":
    main()
