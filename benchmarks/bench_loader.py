"""Images that a worker's loader decodes in a second, against a bare loop that decodes the same bytes.

JPEG photos in committed shards, read through the cache of pieces, shuffled, cropped, in batches. Both take
turns, epoch by epoch. Also: how long the first batch takes when nothing is on the disk yet and each shard
takes 0.3 s to read, and how many of 24 have been read by then.

    python benchmarks/bench_loader.py
    python benchmarks/bench_loader.py --only-memory   # 600 MB of images, a Ray object store of 210 MB

Training puts nothing into the object store, so that nothing is spilled; this measures that, with two ranks'
loaders in two tasks.
"""

import argparse
import glob
import io
import os
import tempfile
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from uniemo_ray.data.preprocess import make_preprocess
from uniemo_ray.data.views import RandomCrop, View, decode_views
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import commit_shard
from uniemo_ray.training.batches import Collate
from uniemo_ray.training.loading import cache as cache_module
from uniemo_ray.training.loading.batches import Share, load_batches
from uniemo_ray.training.loading.cache import PieceCache
from uniemo_ray.training.loading.feed import PieceFeed
from uniemo_ray.training.loading.order import shuffled_order, training_bounds
from uniemo_ray.training.loading.pieces import ShardRows, read_piece, shard_rows

SIDE_PX, BATCH = 224, 32
CROP = (0.6, 1.0)
COLUMNS = ["image_id", "image", "emotion", "scene", "objects"]
SLOW_S = 0.3


def photo(rng: np.random.Generator, width: int, height: int) -> bytes:
    """A JPEG with the waves and the noise of a photo."""
    y, x = np.mgrid[0:height, 0:width]
    base = sum(
        np.sin(x / rng.uniform(5, 120) + y / rng.uniform(5, 120) + rng.uniform(0, 6)) for _ in range(12)
    )
    pixels = np.stack([128 + 22 * base * rng.uniform(0.5, 1.2) for _ in range(3)], -1)
    pixels += rng.normal(0, 8, pixels.shape)
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=88)
    return file.getvalue()


def write_photos(folder: Path, count: int, *, width: int, height: int) -> ShardRows:
    """Committed shards of 64 photos."""
    rng = np.random.default_rng(0)
    kinds = [photo(rng, width, height) for _ in range(16)]
    rows = [
        {"image_id": f"i{i}", "image": kinds[i % 16], "emotion": "awe", "scene": "s", "objects": ["o"]}
        for i in range(count)
    ]
    return commit(folder, rows, per_shard=64)


def commit(folder: Path, rows: list[dict[str, Any]], *, per_shard: int) -> ShardRows:
    """Rows as shards of a store."""
    store = open_store(str(folder))
    for number, start in enumerate(range(0, len(rows), per_shard)):
        table = pa.Table.from_pylist(rows[start : start + per_shard])
        commit_shard(store, f"train/part-{number:05d}", table, plan_hash="bench")
    return shard_rows([(store, "train")], columns=[name for name in COLUMNS if name in rows[0]])


def collate() -> Collate:
    """What stage 1 of CLIP ViT-B and L makes of a picture."""
    preprocess = make_preprocess("clip", size_px=SIDE_PX, mean=(0.5,) * 3, std=(0.25,) * 3)
    return Collate(
        preprocess=preprocess, scenes=("s",), objects=("o",), crop_scale=CROP, seed=0, max_pixels=50_000_000
    )


def bare(images: list[bytes]) -> float:
    """Images per second of one thread that does nothing but decode and crop."""
    started = time.perf_counter()
    for i, data in enumerate(images):
        view = View(SIDE_PX, SIDE_PX, "bicubic", RandomCrop(i, CROP))
        decode_views(data, [view], max_pixels=50_000_000, may_reduce=True)
    return len(images) / (time.perf_counter() - started)


def loaded(data: ShardRows, folder: Path, *, threads: int, epoch: int) -> float:
    """Images per second of an epoch through the loader."""
    order = shuffled_order(data.sizes, data.lengths, seed=0, epoch=epoch)
    decode = partial(collate(), epoch=epoch, is_training=True)
    started, seen = time.perf_counter(), 0
    with closing(PieceFeed(data, order, PieceCache(folder))) as feed:
        bounds = training_bounds(order.rows, BATCH)
        for batch in load_batches(
            bounds, Share(0, 1), read=feed.rows, decode=decode, threads=threads, is_pinned=False
        ):
            seen += len(batch.image_ids)
    return seen / (time.perf_counter() - started)


def measure_rate(folder: Path, *, photos: int, rounds: int) -> None:
    """Print rates by size of the photos and by threads."""
    torch.set_num_threads(1)
    for width, height in ((640, 480), (1024, 768), (2048, 1536)):
        data = write_photos(folder / f"{width}", photos, width=width, height=height)
        images = [row["image"] for row in read_piece(data.pieces[0], ["image"], data.filesystem).to_pylist()]
        loaded(data, folder / "cache", threads=0, epoch=0)  # onto the disk
        found: dict[str, list[float]] = {"bare": [], "0": [], "1": [], "2": []}
        for epoch in range(rounds):
            found["bare"].append(bare((images * photos)[:photos]))
            for threads in (0, 1, 2):
                found[str(threads)].append(loaded(data, folder / "cache", threads=threads, epoch=epoch))
        alone = found.pop("bare")
        shown = ", ".join(
            f"{threads} threads {median(rates):.0f} ({median(np.divide(rates, alone)):.2f})"
            for threads, rates in found.items()
        )
        print(f"{width} x {height}: images/s bare {median(alone):.0f}; {shown}")


def measure_reduction() -> None:
    """Print what decoding at a smaller size saves, and by how much its squares differ."""
    rng = np.random.default_rng(1)
    for width, height in ((1024, 768), (2048, 1536), (4000, 3000)):
        data = photo(rng, width, height)
        views = [View(SIDE_PX, SIDE_PX, "bicubic", RandomCrop(seed, CROP)) for seed in range(10)]
        seconds, squares = [], []
        for may_reduce in (False, True):
            started = time.perf_counter()
            found = [decode_views(data, [v], max_pixels=10**8, may_reduce=may_reduce)[0] for v in views]
            seconds.append((time.perf_counter() - started) / len(views))
            squares.append(np.stack(found).astype(float))
        gap = np.abs(squares[0] - squares[1])
        print(
            f"{width} x {height}: {1e3 * seconds[0]:.1f} ms whole, {1e3 * seconds[1]:.1f} ms reduced; "
            f"squares differ by {gap.mean():.2f} of 255 on average, {np.percentile(gap, 99):.0f} for 99 %"
        )


def measure_start(folder: Path) -> None:
    """Print the time to the first batch of 16, of 24 slow shards of 40 images of 100 kB."""
    rng = np.random.default_rng(0)
    rows = [{"image_id": f"i{i}", "image": rng.bytes(100_000)} for i in range(24 * 40)]
    data = commit(folder / "slow", rows, per_shard=40)
    read: list[Any] = []

    def slow(piece: Any, *more: Any) -> pa.Table:
        time.sleep(SLOW_S * len(piece.parts))
        read.extend(piece.parts)
        return read_piece(piece, *more)

    cache_module.read_piece = slow
    order = shuffled_order(data.sizes, data.lengths, seed=0, epoch=0)
    needed = {int(piece) for piece in order.places(0, 16)[:, 0]}
    started = time.perf_counter()
    with closing(PieceFeed(data, order, PieceCache(folder / "cold"))) as feed:
        feed.rows(range(16))
        first = time.perf_counter() - started
        print(
            f"first batch: {first:.1f} s, of {sum(len(data.pieces[piece].parts) for piece in needed)} of 24 "
            f"shards ({len(read)} were read by then, the others ahead), each {SLOW_S} s"
        )
    cache_module.read_piece = read_piece


def measure_memory(folder: Path) -> None:
    """Print what is spilled while two ranks load 600 MB past an object store of 210 MB."""
    import ray

    rng = np.random.default_rng(0)
    data = None
    for number in range(12):
        rows = [{"image_id": f"i{number}-{i}", "image": rng.bytes(100_000)} for i in range(500)]
        store = open_store(str(folder / "large"))
        commit_shard(store, f"train/part-{number:05d}", pa.Table.from_pylist(rows), plan_hash="bench")
    data = shard_rows([(store, "train")], columns=["image_id", "image"])
    temporary = folder / "ray"
    os.environ["RAY_AUTH_MODE"] = "disabled"
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=210 << 20,
        _temp_dir=str(temporary),
        log_to_driver=False,
    )

    @ray.remote(num_cpus=1)
    def load(rank: int) -> int:
        order, seen = shuffled_order(data.sizes, data.lengths, seed=0, epoch=0), 0
        with closing(PieceFeed(data, order, PieceCache(folder / "cache"), first=rank / 2)) as feed:
            for step in training_bounds(order.rows, 64):
                seen += sum(len(feed.rows(span)["image"]) for span in Share(rank, 2).spans(step))
        return seen

    started = time.perf_counter()
    seen = sum(ray.get([load.remote(rank) for rank in range(2)]))
    seconds = time.perf_counter() - started
    spilled = glob.glob(f"{temporary}/**/ray_spilled_objects*/**", recursive=True)
    size = sum(os.path.getsize(path) for path in spilled if os.path.isfile(path))
    ray.shutdown()
    print(f"600 MB past a store of 210 MB: {seen} images in {seconds:.0f} s, {size} bytes spilled")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only-memory", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if not options.only_memory:
            measure_rate(Path(scratch), photos=options.photos, rounds=options.rounds)
            measure_reduction()
            measure_start(Path(scratch))
        measure_memory(Path(scratch))


if __name__ == "__main__":
    main()
