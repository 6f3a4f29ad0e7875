"""Memory of a generation run: many images must not take more than few.

The real path (plan, Ray Data, actors, commits, manifest) with a painter of tiny images, each run in a process
of its own. Quick by default; `--images 1000 100000` is the figure that is meant.

With `--rows 10000 1000000`: what the driver alone takes to measure, to mix and to report so many images.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from driver_memory import STEPS
from process_usage import WATCH_EVERY_S, Usage, watch

ACTORS = 2
ROWS = 64


def generate(folder: str, images: int) -> None:
    """What is measured, in a process of its own."""
    import ray
    from cheap_painter import CheapPainter, cheap_plan

    from uniemo_ray.config import GenerationConfig
    from uniemo_ray.distributed.shards.generate import generate_images
    from uniemo_ray.pools import Pool
    from uniemo_ray.store.run import RunFolder

    ray.init(
        address="local",
        num_cpus=ACTORS,
        include_dashboard=False,
        object_store_memory=200_000_000,
        log_to_driver=False,
    )
    config = GenerationConfig(rows_per_shard=ROWS, actors=ACTORS)
    plan = cheap_plan(images, config)
    with RunFolder.open(folder, config).locked() as run:
        made = generate_images(
            plan,
            store=run.fenced_store.sub("artefacts/images"),
            model="cheap",
            config=config,
            pool=Pool(memory_gb=0.2, actors=2),
            actor=CheapPainter,
        )
    assert (made.rows, made.failed) == (plan.num_rows, {})
    time.sleep(2 * WATCH_EVERY_S)  # let the last peaks be seen


def measure(images: int) -> Usage:
    """Peaks of a run of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-memory-") as folder:
        started = time.monotonic()
        command = [sys.executable, __file__, "--folder", folder, "--images", str(images)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, text=True) as process:
            usage = watch(process)
        if process.returncode:
            raise SystemExit(f"generating {images} images failed with code {process.returncode}")
    peaks = ", ".join(f"{name} {mb:.0f} MB" for name, mb in sorted(usage.by_kind.items()))
    took_s = time.monotonic() - started
    print(f"memory: {images} images in {took_s:.0f} s: all {usage.all_mb:.0f} MB; {peaks}", flush=True)
    return usage


def measure_driver(rows: int) -> None:
    """Peak memory and time of each step, each in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("driver_memory.py"))]
    with tempfile.TemporaryDirectory(prefix="bench-driver-") as folder:
        subprocess.run([*command, "write", folder, "--rows", str(rows)], check=True)
        for step in STEPS:
            done = subprocess.run([*command, step, folder], check=True, stdout=subprocess.PIPE, text=True)
            result = json.loads(done.stdout.splitlines()[-1])
            print(
                f"memory: driver, {step} of {rows} images: {result['peak_mb']:.0f} MB, "
                f"{result['seconds']:.0f} s; {result['found']}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 10_000], help="one run each")
    parser.add_argument("--rows", type=int, nargs="+", help="measure the steps after generation instead")
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rows:
        for rows in options.rows:
            measure_driver(rows)
        return
    if options.folder:
        generate(options.folder, options.images[0])
        return
    first, *others = [measure(images) for images in options.images]
    for images, usage in zip(options.images[1:], others, strict=True):
        ratios = ", ".join(f"{name} {usage.by_kind[name] / mb:.2f}" for name, mb in first.by_kind.items())
        total = f"all {usage.all_mb / first.all_mb:.2f}; largest {ratios}"
        print(f"memory: {images} against {options.images[0]} images: {total}")


if __name__ == "__main__":
    main()
