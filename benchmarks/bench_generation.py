"""Images a second of one generating actor in Ray Data, against a bare loop with as many threads.

Both run the same plan with the same model folder in the same run; the first shard of each is warm-up.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import ray

from uniemo_ray.config import Config
from uniemo_ray.distributed.shards.generate import generate_images
from uniemo_ray.feedback.plan import PlannedImages
from uniemo_ray.inference.generator import ImageGenerator
from uniemo_ray.inference.model_folder import load_model_folder
from uniemo_ray.pools import Pool
from uniemo_ray.shipped import SHIPPED
from uniemo_ray.store.filesystem import open_store

# Ray's workers stand back (nice 15) by default; whatever else runs on the machine would slow them alone.
os.environ.setdefault("RAY_worker_niceness", "0")


def bare_rate(plan, model: str, rows: int) -> float:
    """Images a second of a plain loop over the shards, without storage."""
    generator = ImageGenerator(model, threads=1)
    times = []
    for start in range(0, plan.num_rows, rows):
        part = plan.slice(start, rows)
        generator({name: part[name].to_numpy(zero_copy_only=False) for name in part.column_names})
        times.append(time.time())
    return (plan.num_rows - rows) / (times[-1] - times[0])


def ray_rate(plan, model: str, config: Config, folder: Path) -> float:
    """Images a second of one actor, from the times at which its shards were committed."""
    pool = Pool(memory_gb=1.5)
    generate_images(plan, store=open_store(str(folder)), model=model, config=config.generation, pool=pool)
    times = sorted(path.stat().st_mtime for path in (folder / "manifest" / "images").glob("*.json"))
    return (plan.num_rows - config.generation.rows_per_shard) / (times[-1] - times[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=SHIPPED, help="model folder (default: the shipped one)")
    parser.add_argument("--shards", type=int, default=6)
    options = parser.parse_args()
    parts = load_model_folder(options.model)
    rows = 32
    generation = parts.config.generation.model_copy(update={"rows_per_shard": rows, "actors": 1})
    config = parts.config.model_copy(update={"generation": generation})
    plan = PlannedImages(
        round_=1,
        kind="emotion",
        per_emotion=rows * options.shards // 8,
        seed=0,
        model=parts.fingerprint,
        diffusion=config.diffusion,
        generation=generation,
    ).table
    model = options.model if options.model == SHIPPED else str(Path(options.model).resolve())
    bare = bare_rate(plan, model, rows)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as scratch:
        through_ray = ray_rate(plan, model, config, Path(scratch))
    rates = f"{through_ray:.2f} images/s through Ray Data, {bare:.2f} bare"
    print(f"generation: {rates}, ratio {through_ray / bare:.3f}")


if __name__ == "__main__":
    main()
