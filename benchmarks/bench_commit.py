"""The commit protocol's share of an actor's time: all that is not making images, on disk and on S3.

One actor's code in this process, with the real generator: plan shards are read and checked, images made, put,
compared, listed. For S3 too: eval "$(python cluster/local_s3.py env)", then --run s3://bucket/prefix.
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

import pyarrow as pa

from uniemo_ray.config import Config
from uniemo_ray.distributed.shards.actors.diffusion import GenerateActor
from uniemo_ray.distributed.shards.mapper import MapWork, ShardMapper
from uniemo_ray.distributed.shards.report import ShardTask
from uniemo_ray.feedback.plan import PlannedImages
from uniemo_ray.feedback.plan_shards import IMAGES_FOLDER, PLAN_FOLDER, commit_plan
from uniemo_ray.inference.model_folder import load_model_folder
from uniemo_ray.shipped import SHIPPED
from uniemo_ray.store.base import Store
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.shards import committed

WANTED = 0.03


class TimedActor(GenerateActor):
    """The generating actor, with the time that it makes images."""

    seconds = 0.0

    def __call__(self, table: pa.Table) -> pa.Table:
        started = time.perf_counter()
        made = super().__call__(table)
        TimedActor.seconds += time.perf_counter() - started
        return made


def tasks(store: Store) -> list[ShardTask]:
    """One for each plan shard."""
    return [
        ShardTask(
            entry.key,
            entry.bytes,
            entry.sha256,
            name.replace(PLAN_FOLDER, IMAGES_FOLDER),
            entry.plan_hash,
            attempt=1,
            is_last=False,
        )
        for name, entry in committed(store, f"{PLAN_FOLDER}/").items()
    ]


def shares(store: Store, model: str, config: Config) -> list[float]:
    """Share of each shard's time that the protocol took; the first is warm-up and not among them."""
    actor = partial(TimedActor, model=model, threads=1)
    mapper = ShardMapper(MapWork(actor, "cpu", store, store, retries=0, label=IMAGES_FOLDER))
    found = []
    for task in tasks(store):
        TimedActor.seconds, started = 0.0, time.perf_counter()
        report = mapper.map(task)
        seconds = time.perf_counter() - started
        assert not report.kind, report
        found.append(1 - TimedActor.seconds / seconds)
    return found[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=SHIPPED, help="model folder (default: the shipped one)")
    parser.add_argument("--run", action="append", default=[], help="empty run folder more, such as on S3")
    parser.add_argument("--shards", type=int, default=5)
    parser.add_argument("--rows", type=int, default=64, help="images per shard")
    options = parser.parse_args()
    model = options.model if options.model == SHIPPED else str(Path(options.model).resolve())
    parts = load_model_folder(model)
    with tempfile.TemporaryDirectory() as scratch:
        for uri in (scratch, *options.run):
            generation = parts.config.generation.model_copy(update={"rows_per_shard": options.rows})
            plan = PlannedImages(
                round_=1,
                kind="emotion",
                per_emotion=options.rows * (options.shards + 1) // 8,
                seed=0,
                model=parts.fingerprint,
                diffusion=parts.config.diffusion,
                generation=generation,
            )
            with RunFolder.open(uri, {}).locked() as run:
                store = run.fenced_store.sub("artefacts/generate-1")
                commit_plan(plan, store, rows_per_shard=options.rows)
                found = sorted(shares(store, model, parts.config))
            where = "S3" if uri.startswith("s3://") else "disk"
            median = found[len(found) // 2]
            spread = f"{found[0]:.2%} to {found[-1]:.2%}; wanted at most {WANTED:.0%}"
            shards = f"{len(found)} shards of {options.rows}"
            print(f"commit protocol on {where}: {median:.2%} of an actor's time over {shards} ({spread})")


if __name__ == "__main__":
    main()
