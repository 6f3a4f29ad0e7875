"""How much of its time an actor paints, when encoding and committing take as long as painting.

The painter sleeps for each image, as a GPU does its work; smooth pictures are then encoded as PNG and
committed in shards. Once as two threads of Ray call an actor, once one shard after the other.
"""

# n images of a shard

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
from PIL import Image

from uniemo_ray.config import PNG_LEVEL, DiffusionConfig, GenerationConfig
from uniemo_ray.distributed.shards.lanes import AT_ONCE
from uniemo_ray.distributed.shards.mapper import MapWork, ShardMapper
from uniemo_ray.distributed.shards.report import ShardTask
from uniemo_ray.feedback.plan import PlannedImages
from uniemo_ray.feedback.plan_shards import IMAGES_FOLDER, PLAN_FOLDER, commit_plan
from uniemo_ray.feedback.schema import IMAGES
from uniemo_ray.inference.generator import ENCODERS
from uniemo_ray.inference.provenance import encode_png, library_versions, sha256_hex
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import committed

RANDOM = np.random.default_rng(0)


class SleepingPainter:
    """PLAN rows in, IMAGES rows out; all but a picture's own work is as in the generating actor."""

    def __init__(self, *, paint_s: float, side_px: int, level: int, device: str) -> None:
        self.paint_s, self.level = paint_s, level
        coarse = Image.fromarray(RANDOM.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        self.pixels = np.asarray(coarse.resize((side_px, side_px), Image.Resampling.BICUBIC))
        self.encoders = ThreadPoolExecutor(ENCODERS)
        self.busy_s = 0.0

    def begin(self, table: pa.Table) -> Callable[[], pa.Table]:
        futures = []
        for row in table.to_pylist():
            started = time.monotonic()
            time.sleep(self.paint_s)
            self.busy_s += time.monotonic() - started
            futures.append(self.encoders.submit(self.encode, row))
        return lambda: pa.Table.from_pylist([future.result() for future in futures], schema=IMAGES)

    def encode(self, row: dict[str, object]) -> dict[str, object]:
        png = encode_png(self.pixels, row, level=self.level)
        return row | {"image": png, "sha256": sha256_hex(png), "versions": library_versions()}

    def __call__(self, table: pa.Table) -> pa.Table:
        return self.begin(table)()


class SerialPainter:
    """The same, as it was: paints a whole shard, then encodes it on the same thread."""

    def __init__(self, inner: SleepingPainter) -> None:
        self.inner = inner

    def __call__(self, table: pa.Table) -> pa.Table:
        started = time.monotonic()
        time.sleep(self.inner.paint_s * table.num_rows)
        self.inner.busy_s += time.monotonic() - started
        return pa.Table.from_pylist([self.inner.encode(row) for row in table.to_pylist()], schema=IMAGES)


def busy_share(painter: SleepingPainter, options: argparse.Namespace, *, overlaps: bool) -> float:
    """Share of the time, from the first shard to the last commit, in which the painter paints."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        plan = PlannedImages(
            round_=1,
            kind="emotion",
            per_emotion=options.rows * options.shards // 8,
            seed=0,
            model="sleeping",
            diffusion=DiffusionConfig(),
            generation=GenerationConfig(),
        )
        commit_plan(plan, store, rows_per_shard=options.rows)
        entries = committed(store, f"{PLAN_FOLDER}/").values()
        tasks = [
            ShardTask(
                entry.key,
                entry.bytes,
                entry.sha256,
                entry.name.replace(PLAN_FOLDER, IMAGES_FOLDER),
                entry.plan_hash,
                attempt=1,
                is_last=False,
            )
            for entry in entries
        ]
        actor = painter if overlaps else SerialPainter(painter)
        mapper = ShardMapper(MapWork(lambda device: actor, "cpu", store, store, retries=0, label="bench"))
        lock, waiting = threading.Lock(), list(reversed(tasks))
        painter.busy_s, started = 0.0, time.monotonic()

        def work() -> None:
            while True:
                with lock:
                    if not waiting:
                        return
                    task = waiting.pop()
                report = mapper.map(task)
                assert not report.kind, report.reason

        threads = [threading.Thread(target=work) for _ in range(AT_ONCE if overlaps else 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return painter.busy_s / (time.monotonic() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--paint-ms", type=float, default=80, help="sleep for each image")
    parser.add_argument("--side-px", type=int, default=512)
    parser.add_argument("--rows", type=int, default=32, help="images of a shard")
    parser.add_argument("--shards", type=int, default=12)
    parser.add_argument("--level", type=int, default=PNG_LEVEL, help="effort of PNG's compression")
    parser.add_argument("--repeats", type=int, default=3, help="the best one counts")
    options = parser.parse_args()
    painter = SleepingPainter(
        paint_s=options.paint_ms / 1000, side_px=options.side_px, level=options.level, device="cpu"
    )
    started = time.process_time()
    for _ in range(5):
        painter.encode({"seed": 1})
    encode_ms = 1000 * (time.process_time() - started) / 5
    for name, overlaps in (("one after the other", False), ("overlapping", True)):
        best = max(busy_share(painter, options, overlaps=overlaps) for _ in range(options.repeats))
        print(f"{name}: the painter is busy {best:.3f} of the time (PNG: {encode_ms:.0f} ms an image)")


if __name__ == "__main__":
    main()
