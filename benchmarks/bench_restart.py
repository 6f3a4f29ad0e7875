"""How long a finished run of many shards takes to find that there is nothing to do.

Its manifest alone is written; then what the generating step does is done again, as after a kill just before
its record. On S3: python benchmarks/bench_restart.py --run s3://bucket/prefix
"""

import argparse
import hashlib
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

from uniemo_ray.config import DiffusionConfig, GenerationConfig
from uniemo_ray.distributed.shards.map_shards import map_shards
from uniemo_ray.feedback.plan import PlannedImages
from uniemo_ray.feedback.plan_shards import IMAGES_FOLDER, PLAN_FOLDER, commit_plan
from uniemo_ray.feedback.schema import IMAGES
from uniemo_ray.pools import Pool
from uniemo_ray.store.base import Store
from uniemo_ray.store.entry import ShardEntry
from uniemo_ray.store.record import library_versions
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.seal import SEAL_FOLDER, entry_key
from uniemo_ray.store.shards import seal_manifest

ROWS = 8


def submit(store: Store, plan: PlannedImages) -> int:
    """What the generating step does; there must be nothing left for actors."""
    commit_plan(plan, store, rows_per_shard=ROWS)
    made = map_shards(
        store,
        {IMAGES_FOLDER: PLAN_FOLDER},
        target=store,
        actor=lambda **_: None,
        plan_hash=None,
        pool=Pool(memory_gb=1.5, actors=2),
    )
    return made[IMAGES_FOLDER]


def fill(store: Store, plan: PlannedImages) -> None:
    """Write the manifest of a finished run; a restart reads nothing else."""
    versions, schema = library_versions(), {field.name: str(field.type) for field in IMAGES}

    def write(shard: tuple[str, int]) -> None:
        folder, number = shard
        digest = plan.digest(number * ROWS, ROWS)
        entry = ShardEntry(
            name=f"{folder}/part-{number:05d}",
            rows=ROWS,
            bytes=1_000_000 + number,
            sha256=hashlib.sha256(digest.encode()).hexdigest(),
            schema=schema,
            plan_hash=digest,
            versions=versions,
            seconds=number / 1000,
            epoch=store.fence.epoch if store.fence else 0,
        )
        store.write_json(entry_key(entry.name), asdict(entry))

    shards = range(plan.num_rows // ROWS)
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(write, [(folder, k) for folder in (PLAN_FOLDER, IMAGES_FOLDER) for k in shards]))
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
        print(f"manifest of {options.shards} shards written in {time.monotonic() - started:.1f} s")
        for attempt in ("first", "second"):
            started, cpu = time.monotonic(), time.process_time()
            with RunFolder.open(uri, {}).locked() as run:
                rows = submit(run.fenced_store.sub("artefacts/generate-1"), plan)
            assert rows == plan.num_rows
            seconds, cpu = time.monotonic() - started, time.process_time() - cpu
            print(f"{attempt} restart: nothing to do after {seconds:.2f} s ({cpu:.2f} s of CPU)")
        sealed = run.store.sub("artefacts/generate-1").list(SEAL_FOLDER)[-1]
        size = len(run.store.read_bytes(f"artefacts/generate-1/{sealed}"))
        print(f"seal: {size / (2 * options.shards):.0f} bytes an entry")


if __name__ == "__main__":
    main()
