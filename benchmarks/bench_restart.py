"""How long a finished run of many shards takes to find that there is nothing to do.

Its shards are tiny and written without Ray; then what the generating step does is done again, as after a kill
just before its record. On S3: python benchmarks/bench_restart.py --run s3://bucket/prefix
"""

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from uniemo_ray.config import DiffusionConfig, GenerationConfig, ResourceConfig
from uniemo_ray.distributed.map_shards import map_shards
from uniemo_ray.feedback.plan import PlannedImages
from uniemo_ray.feedback.plan_shards import IMAGES_FOLDER, PLAN_FOLDER, commit_plan
from uniemo_ray.store.base import Store
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.shards import commit_shard, committed, seal_manifest

ROWS = 8


def submit(store: Store, plan: PlannedImages) -> int:
    """What the generating step does; there must be nothing left for actors."""
    commit_plan(plan, store, rows_per_shard=ROWS)
    made = map_shards(
        store,
        {IMAGES_FOLDER: PLAN_FOLDER},
        target=store,
        actor=lambda **_: None,
        settings={},
        plan_hash=None,
        resources=ResourceConfig(),
    )
    return made[IMAGES_FOLDER]


def fill(store: Store, plan: PlannedImages) -> None:
    """Commit all shards, as actors would."""
    commit_plan(plan, store, rows_per_shard=ROWS)
    rows = pa.table({"image_id": ["x"] * ROWS, "reason": pa.array([None] * ROWS, pa.string())})

    def commit(name: str, plan_hash: str) -> None:
        commit_shard(store, name.replace(PLAN_FOLDER, IMAGES_FOLDER), rows, plan_hash=plan_hash)

    entries = committed(store, f"{PLAN_FOLDER}/").values()
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(commit, *zip(*[(entry.name, entry.plan_hash) for entry in entries], strict=True)))
    seal_manifest(store)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", help="empty run folder (default: a temporary one)")
    parser.add_argument("--shards", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        uri = options.run or scratch
        plan = PlannedImages(
            round_=1,
            kind="emotion",
            per_emotion=options.shards * ROWS // 8,
            seed=0,
            model="none",
            diffusion=DiffusionConfig(),
            generation=GenerationConfig(),
        )
        started = time.monotonic()
        with RunFolder.open(uri, {}).locked() as run:
            fill(run.fenced_store.sub("artefacts/generate-1"), plan)
        filled = time.monotonic() - started
        print(f"{options.shards} shards written in {filled:.1f} s ({filled / options.shards:.4f} s each)")
        for attempt in ("first", "second"):
            started = time.monotonic()
            with RunFolder.open(uri, {}).locked() as run:
                rows = submit(run.fenced_store.sub("artefacts/generate-1"), plan)
            assert rows == plan.num_rows
            print(f"{attempt} restart: nothing to do after {time.monotonic() - started:.2f} s")


if __name__ == "__main__":
    main()
