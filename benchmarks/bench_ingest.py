"""Ingest of many images: rate per core against bare loops, memory, bad files, a kill, sizes of shards.

The rate stands beside two bare loops that read and hash the same files; all three take turns in one process.
One loop decodes every picture whole. The other decodes as ingest does, which keeps no pixel: of a JPEG it
reads every coefficient, but makes only a small grey picture of them. Against the first, ingest gains what it
does not compute and its ratio may exceed 1; the second shows what all the work around the decoding costs.

Memory is that of the driver and all Ray processes (PSS), at a few and at many images with equally large
shards.

    python benchmarks/bench_ingest.py --images 100000
"""

import argparse
import hashlib
import io
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import ray
from PIL import Image
from process_usage import proportional_bytes

from uniemo_ray.config import DataConfig
from uniemo_ray.data.readers import open_folder
from uniemo_ray.data.sample_reader import SampleReader
from uniemo_ray.data.sample_shards import SamplesFormat
from uniemo_ray.data.shards import PlannedShard, ShardLimits, plan_shards
from uniemo_ray.distributed.ingest import IngestResult, ingest_folder
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.store.base import Store
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import commit_shard

CPUS, FEW = 2, 1000
SMALL_SHARD, WHOLE_MB = 250, 256
BAD = {"empty.jpg": b"", "text.jpg": b"no picture", "cut.jpg": None}
"""Files that are no pictures; the cut one is the first half of a good one."""


def draw_images(numbers: range, *, root: Path, side_px: int) -> None:
    """Distinct JPEG files, soft as photographs are, in one folder per emotion."""
    for number in numbers:
        rng = np.random.default_rng(number)
        rough = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        soft = np.asarray(rough.resize((side_px, side_px), Image.Resampling.BICUBIC), np.int16)
        grain = rng.integers(-12, 13, soft.shape, dtype=np.int16)
        picture = Image.fromarray(np.clip(soft + grain, 0, 255).astype(np.uint8))
        folder = root / EMOTIONS[number % len(EMOTIONS)]
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"{number:07d}.jpg", quality=90)


def draw_set(root: Path, count: int, *, side_px: int) -> Path:
    """A folder per emotion with `count` images in all."""
    blocks = [range(start, min(start + 500, count)) for start in range(0, count, 500)]
    with ProcessPoolExecutor(CPUS) as pool:
        list(pool.map(partial(draw_images, root=root, side_px=side_px), blocks))
    return root


def ingest(root: Path, out: Path, limits: ShardLimits) -> IngestResult:
    """What the step does, from a folder of classes."""
    reader = partial(open_folder, data=DataConfig(kind="fi", root=str(root)))
    return ingest_folder(root, open_store(str(out)), source="fi", reader=reader, limits=limits)


def write_shard(shard: PlannedShard, reader: SampleReader, store: Store) -> None:
    """What an actor does with one shard."""
    form, name = SamplesFormat(), f"samples/{shard.name}"
    samples = form.finish(reader.read(shard.table()), name)
    digest = reader.fingerprint(shard.split, shard.entries)
    commit_shard(store, name, samples, plan_hash=digest, form=form)


class Memory:
    """Peak PSS of this process and of all below it, sampled twice a second."""

    def __enter__(self) -> "Memory":
        self.own_bytes = self.all_bytes = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        own = psutil.Process()
        while not self._ended.wait(0.5):
            sizes = [proportional_bytes(process) for process in (own, *own.children(recursive=True))]
            self.own_bytes, self.all_bytes = max(self.own_bytes, sizes[0]), max(self.all_bytes, sum(sizes))


def start_ray() -> None:
    ray.init(address="local", num_cpus=CPUS, include_dashboard=False, log_to_driver=False)


def run_once(root: Path, out: Path, limits: ShardLimits) -> None:
    """Ingest in this process and print what it took as JSON; `main` starts this as a process of its own."""
    start_ray()
    with Memory() as memory:
        started = time.monotonic()
        result = ingest(root, out, limits)
        seconds = time.monotonic() - started
    sizes = [file.bytes for file in result.files]
    print(
        json.dumps(
            {
                "images": sum(result.counts.values()),
                "rejected": result.rejected_counts,
                "shards": result.shards,
                "skipped": result.skipped,
                "seconds": seconds,
                "own_mb": memory.own_bytes / 1e6,
                "all_mb": memory.all_bytes / 1e6,
                "largest_mb": max(sizes) / 1e6,
                "digest": hashlib.sha256("".join(f.sha256 for f in result.files).encode()).hexdigest(),
            }
        )
    )


def process(root: Path, out: Path, limits: ShardLimits) -> "subprocess.Popen[str]":
    numbers = [str(value) for value in limits]
    command = [sys.executable, __file__, "--once", str(root), str(out), *numbers]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def outcome(running: "subprocess.Popen[str]") -> dict:
    output, _ = running.communicate()
    if running.returncode:
        raise SystemExit(f"ingest ended with {running.returncode}")
    return dict(json.loads(output.splitlines()[-1]))


def bare_loop(paths: list[Path], *, is_whole: bool) -> None:
    """Read, hash and decode files, and nothing else: whole, or JPEGs in grey to an eighth of the side."""
    for path in paths:
        data = path.read_bytes()
        hashlib.sha256(data).hexdigest()
        image = Image.open(io.BytesIO(data))
        if not is_whole:
            image.draft("L", (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()


def timed(work: Callable[[], object]) -> np.ndarray:
    """Seconds by the clock, and of the CPU, which other programs disturb less."""
    clock, cpu = time.monotonic(), time.process_time()
    work()
    return np.array([time.monotonic() - clock, time.process_time() - cpu])


def measure_rate(folder: Path, *, count: int, side_px: int, rounds: int) -> None:
    """Images a second of what an ingest task does, and of both bare loops on the same files, on one core."""
    root = draw_set(folder / "photos", count, side_px=side_px)
    data = open_folder(root, DataConfig(kind="fi", root=str(root)))
    (shard,) = plan_shards(data.entries("train"), "train", root=root, limits=ShardLimits(count, 1 << 40))
    paths = [root / entry.image for entry in shard.entries]
    reader = SampleReader(root, data.names, data.space.labels, "fi", 50_000_000)
    times = []
    for number in range(rounds + 1):
        out = str(folder / f"rate-{number}")
        loops = [partial(bare_loop, paths, is_whole=is_whole) for is_whole in (True, False)]
        turn = [timed(work) for work in (*loops, partial(write_shard, shard, reader, open_store(out)))]
        shutil.rmtree(out)
        times += [turn] if number else []  # the first round is warm-up
    whole, small, ours = np.moveaxis(np.array(times), 0, -1)  # (clock and CPU, rounds) of each
    kilobytes = statistics.mean(path.stat().st_size for path in paths) / 1e3
    rate = len(paths) / np.median(ours, axis=1)[1]
    print(f"rate: {rate:.0f} images a second of CPU ({side_px} px, {kilobytes:.0f} kB)")
    for name, bare in (("that decodes whole pictures", whole), ("that decodes as ingest does", small)):
        clock, cpu = bare / ours
        print(
            f"rate: {len(paths) / np.median(bare, axis=1)[1]:.0f} by the bare loop {name}; ratio "
            f"{np.median(cpu):.3f} by CPU time ({cpu.min():.3f} to {cpu.max():.3f}), "
            f"{np.median(clock):.3f} by the clock ({clock.min():.3f} to {clock.max():.3f})",
            flush=True,
        )


def measure_memory(folder: Path, *, count: int) -> Path:
    """Peaks at few and at many small images; returns the folder of many, with bad files among them."""
    limits, peaks = ShardLimits(SMALL_SHARD, 1 << 30), []
    for images in (FEW, count):
        root = draw_set(folder / f"small-{images}", images, side_px=64)
        good = (root / EMOTIONS[0] / "0000000.jpg").read_bytes()
        for name, data in BAD.items():
            (root / EMOTIONS[0] / name).write_bytes(good[: len(good) // 2] if data is None else data)
        found = outcome(process(root, folder / f"out-{images}", limits))
        peaks.append(found)
        print(
            f"memory: {images} images, {found['shards']} shards, {found['seconds']:.0f} s: all processes "
            f"{found['all_mb']:.0f} MB at most, the driver {found['own_mb']:.0f} MB; "
            f"bad files {found['rejected']}, the other {found['images']} are there",
            flush=True,
        )
    ratio = peaks[1]["all_mb"] / peaks[0]["all_mb"]
    each = 1e3 * (peaks[1]["own_mb"] - peaks[0]["own_mb"]) / max(1, count - FEW)
    print(f"memory: ratio {ratio:.2f}; {each:.1f} kB of the driver for each further image", flush=True)
    return root


def measure_kill(root: Path, whole: Path, again: Path) -> None:
    """Kill ingest with half of its shards written, start it again and compare with an undisturbed one."""
    limits, half = ShardLimits(SMALL_SHARD, 1 << 30), len(list(whole.glob("samples/*/part-*.parquet"))) // 2
    running = process(root, again, limits)
    while running.poll() is None and len(list(again.glob("samples/*/part-*.parquet"))) < half:
        time.sleep(0.05)
    family = [psutil.Process(running.pid), *psutil.Process(running.pid).children(recursive=True)]
    for member in family:
        member.send_signal(signal.SIGKILL)
    running.communicate()
    found, calm = outcome(process(root, again, limits)), outcome(process(root, whole, limits))
    is_same = found["digest"] == calm["digest"]
    print(
        f"kill: {found['skipped']} of {found['shards']} shards were found finished, "
        f"the same bytes as undisturbed: {is_same}",
        flush=True,
    )


def measure_sizes(folder: Path, *, count: int) -> None:
    """Shards of a set of large images, bounded by megabytes alone."""
    root = draw_set(folder / "large", count, side_px=1600)
    start_ray()
    result = ingest(root, folder / "large-out", ShardLimits(1 << 30, WHOLE_MB << 20))
    ray.shutdown()
    sizes = ", ".join(f"{file.name} {file.bytes / 2**20:.0f} MiB" for file in result.files)
    print(f"shards of {WHOLE_MB} MiB: {sizes} (the last of a split holds the rest)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=5000, help="of the memory's second figure")
    parser.add_argument("--photos", type=int, default=800, help="images of the rate")
    parser.add_argument("--side", type=int, default=512, help="of these, in pixels")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of loops of the rate")
    parser.add_argument("--whole", type=int, default=0, help="images of 1 MB for shards of whole size")
    parser.add_argument("--only-rate", action="store_true", help="without Ray: nothing but the rate")
    parser.add_argument("--work", type=Path, help="folder for the images (default: a temporary one)")
    parser.add_argument("--once", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        root, out, rows, size = options.once
        run_once(Path(root), Path(out), ShardLimits(int(rows), int(size)))
        return
    with tempfile.TemporaryDirectory(dir=options.work) as scratch:
        folder = Path(scratch)
        measure_rate(folder, count=options.photos, side_px=options.side, rounds=options.rounds)
        if options.only_rate:
            return
        root = measure_memory(folder, count=options.images)
        measure_kill(root, folder / f"out-{options.images}", folder / "again")
        if options.whole:
            measure_sizes(folder, count=options.whole)


if __name__ == "__main__":
    main()
