"""What one broken worker of three, or a broken node, costs a step, beside two good workers alone.

    python benchmarks/bench_sick_worker.py --when later

Shards are sleeps, so three actors fit on two cores. `--when`: broken from the `start`, from the second shard
on (`later`), or at every second load (`load`). What counts is the time from the first to the last commit.
"""

import argparse
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median

os.environ["RAY_AUTH_MODE"] = "disabled"

import pyarrow as pa
import ray
from ray.cluster_utils import Cluster

from benchmarks.sick_actor import SickActor, When
from uniemo_ray.distributed.logs import quiet_ray
from uniemo_ray.distributed.shards.map_shards import map_shards
from uniemo_ray.pools import Pool
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import commit_shard

NODE = {"object_store_memory": 100_000_000, "include_dashboard": False}


def run(when: When, *, actors: int, shards: int, seconds: float, broken: str = "") -> float:
    """Seconds from the first to the last commit of a step that makes all of its shards."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "broken").write_text(broken)
        store = open_store(folder)
        for number in range(shards):
            commit_shard(store, f"plan/part-{number:05d}", pa.table({"x": [number]}), plan_hash="p")
        made = map_shards(
            store,
            {"out": "plan"},
            target=store,
            actor=partial(SickActor, when, folder, seconds),
            plan_hash=None,
            pool=Pool(actors=actors, min_actors=actors, memory_gb=0.1, gpus=1),
        )
        assert made == {"out": shards}
        times = sorted(path.stat().st_mtime for path in Path(folder).glob("out/*.parquet"))
        return times[-1] - times[0]


def measure(
    broken: Mapping[str, str], cases: Sequence[When], *, shards: int, seconds: float, repeats: int
) -> None:
    """Print one line for each case: a broken accelerator, then a broken node."""
    settings = {"shards": shards, "seconds": seconds}
    base = median(run("never", actors=2, **settings) for _ in range(repeats))
    print(f"two good actors: {base:.1f} s for {shards} shards of {seconds} s")
    for what, place in broken.items():
        for when in cases:
            taken = median(run(when, actors=3, broken=place, **settings) for _ in range(repeats))
            rate = f"{base / taken:.2f} of the rate of two good actors"
            print(f"{what} broken ({when}): {taken:.1f} s, {rate}, {(taken - base) / seconds:+.1f} shards")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--when", nargs="+", default=["start", "later", "load"])
    parser.add_argument("--shards", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=0.4)
    parser.add_argument("--repeats", type=int, default=1)
    given = parser.parse_args()
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 2, "num_gpus": 2})
    try:
        node = cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=NODE["object_store_memory"])
        cluster.connect()
        quiet_ray()
        places = {
            "one of three accelerators": f"{cluster.head_node.node_id} 0",
            "one of two nodes": f"{node.node_id} any",
        }
        measure(places, given.when, shards=given.shards, seconds=given.seconds, repeats=given.repeats)
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main()
