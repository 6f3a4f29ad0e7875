"""The exact rank filter against plain numpy sorts: the same verdicts, the time of both, the memory.

python benchmarks/bench_filter.py                               shards on disk, in this process
python benchmarks/bench_filter.py --scale 1000000 10000000      shards on disk, as Ray tasks
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from process_usage import WATCH_EVERY_S, watch

from uniemo_ray.config import FilterConfig
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.feedback.rank_filter import ROWS_PER_TASK, filter_shards
from uniemo_ray.feedback.verdicts import NEEDED
from uniemo_ray.pools import Pool
from uniemo_ray.store.base import Store
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import commit_shard

SHARD_ROWS = 100_000


def make_scores(first: int, rows: int, seed: int) -> pa.Table:
    """Score rows of images `first` and following, in the planner's order; the first score has many ties."""
    rng = np.random.default_rng([seed, first])
    numbers = np.arange(first, first + rows)
    emotions = pa.array(EMOTIONS).take(pa.array(numbers % len(EMOTIONS)))
    indices = pc.utf8_lpad(pa.array(numbers // len(EMOTIONS)).cast(pa.string()), 9, "0")
    columns = [
        pc.binary_join_element_wise("r1", emotions, indices, "-"),
        emotions,
        pa.array(rng.integers(0, 1000, rows).astype(np.float32) / 1000),
        pa.array(rng.random(rows, dtype=np.float32)),
        pa.nulls(rows, pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=NEEDED)


def id_ranks(rows: int) -> np.ndarray:
    """Rank of each image id of `make_scores(0, rows)`: ids sort by emotion, then by index."""
    numbers = np.arange(rows)
    place = np.argsort(np.argsort(EMOTIONS))[numbers % len(EMOTIONS)]
    counts = np.bincount(place)
    return (np.cumsum(counts) - counts)[place] + numbers // len(EMOTIONS)


def reference(scores: list[np.ndarray], *, eta: int, delta: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Ranks (M,) by each criterion and kept rows, by one full sort each."""
    rows, all_ranks = len(scores[0]), []
    kept = np.ones(rows, dtype=bool)
    ties = id_ranks(rows)
    for column in scores:
        ranks = np.empty(rows, dtype=np.int64)
        ranks[np.lexsort((ties, -column))] = np.arange(rows)
        kept &= (ranks >= eta * rows // 100) & (ranks < delta * rows // 100)
        all_ranks.append(ranks)
    return all_ranks, kept


def write_shards(rows: int, folder: Path) -> Store:
    store = open_store(str(folder))
    for number, first in enumerate(range(0, rows, SHARD_ROWS)):
        part = make_scores(first, min(SHARD_ROWS, rows - first), seed=0)
        commit_shard(store, f"scores/part-{number:05d}", part, plan_hash="bench")
    return store


def measure_here(rows: int, folder: Path) -> None:
    store = write_shards(rows, folder)
    started = time.perf_counter()
    summary = filter_shards(store, store, config=FilterConfig())
    print(f"filter in this process: {rows} rows, {time.perf_counter() - started:.2f} s")
    check(store, rows, kept_rows=summary.kept)


def measure_shards(rows: int, folder: Path, args: argparse.Namespace) -> None:
    store = write_shards(rows, folder)
    command = [sys.executable, __file__, "--filter", str(folder), "--actors", str(args.actors)]
    command += ["--rows-per-task", str(args.rows_per_task)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        usage = watch(process)
        output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(f"filtering {rows} rows failed with code {process.returncode}")
    result = json.loads(output.splitlines()[-1])
    took = f"{result['seconds']:.1f} s ({result['seconds'] / rows * 1e6:.2f} us a row), "
    peaks = ", ".join(f"{name} {peak:.0f}" for name, peak in sorted(usage.by_kind.items()))
    memory = f"largest process {usage.peak_mb:.0f} MB ({peaks}), {usage.cpu_s:.0f} CPU-s with Ray's own"
    print(f"filter on shards: {rows} rows, {took}{memory}", flush=True)
    if args.check:
        check(store, rows, kept_rows=result["kept"])


def check(store: Store, rows: int, *, kept_rows: int) -> None:
    """Compare every row's verdict with plain sorts of everything."""
    filesystem, root = store.arrow()
    columns = ["emo_score", "sem_score"]
    scores = pq.read_table(f"{root}/scores", filesystem=filesystem, columns=columns)
    started = time.perf_counter()
    ranks, kept = reference([scores[name].to_numpy() for name in columns], eta=20, delta=80)
    theirs_s = time.perf_counter() - started
    is_same = kept_rows == int(kept.sum())
    for number, first in enumerate(range(0, rows, SHARD_ROWS)):
        part = pq.read_table(f"{root}/kept/part-{number:05d}.parquet", filesystem=filesystem)
        own = slice(first, first + len(part))
        is_same &= part["image_id"].equals(make_scores(first, len(part), seed=0)["image_id"])
        for name, wanted in zip(("emo_rank", "sem_rank", "kept"), (*ranks, kept), strict=True):
            is_same &= bool((part[name].to_numpy() == wanted[own]).all())
    print(
        f"  every rank and verdict identical: {is_same}; two plain sorts of numbers: {theirs_s:.2f} s",
        flush=True,
    )


def filter_folder(folder: str, *, actors: int, rows_per_task: int) -> None:
    """What is measured, in a process of its own."""
    import ray

    from uniemo_ray.distributed.ranking import filter_scores

    ray.init(address="local", num_cpus=actors, include_dashboard=False, object_store_memory=200_000_000)
    store = open_store(folder)
    pool = Pool(actors=actors, memory_gb=0.1)
    started = time.perf_counter()
    summary = filter_scores(store, store, config=FilterConfig(), pool=pool, rows_per_task=rows_per_task)
    print(json.dumps({"seconds": time.perf_counter() - started, "kept": summary.kept}), flush=True)
    time.sleep(2 * WATCH_EVERY_S)  # let the last peaks be seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000, help="rows, without --scale")
    parser.add_argument(
        "--scale", type=int, nargs="*", help="rows as Ray tasks, one run each (default 1e6 and 1e7)"
    )
    parser.add_argument("--folder", help="where to put the shards; default: a temporary folder")
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--rows-per-task", type=int, default=ROWS_PER_TASK)
    parser.add_argument(
        "--no-check", dest="check", action="store_false", help="do not compare with plain sorts"
    )
    parser.add_argument("--filter", metavar="FOLDER", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.filter:
        filter_folder(args.filter, actors=args.actors, rows_per_task=args.rows_per_task)
    elif args.scale is None:
        with tempfile.TemporaryDirectory(prefix="bench-filter-", dir=args.folder) as scratch:
            measure_here(args.rows, Path(scratch))
    else:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        for rows in args.scale or [1_000_000, 10_000_000]:
            folder = Path(tempfile.mkdtemp(prefix="bench-filter-", dir=args.folder))
            try:
                measure_shards(rows, folder, args)
            finally:
                shutil.rmtree(folder)


if __name__ == "__main__":
    main()
