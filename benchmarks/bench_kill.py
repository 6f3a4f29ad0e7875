"""Work lost when a driver is killed and submitted again: at most one shard of each actor.

A driver of cheap images as a process of its own gets SIGKILL a random while after its actors have begun some
shards. What actors begin goes into a journal: what stands there more than once was lost.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHARDS, ROWS, DELAY_S = 16, 16, 2.0
KILL_AFTER = (2, 5)
"""Shards begun before each kill, at least and at most."""


def drive(folder: str, *, actors: int) -> None:
    """One submission."""
    import functools

    import ray
    from cheap_painter import CheapPainter, cheap_plan

    from uniemo_ray.config import GenerationConfig
    from uniemo_ray.distributed.shards.generate import generate_images
    from uniemo_ray.pools import Pool
    from uniemo_ray.store.run import RunFolder
    from uniemo_ray.store.steps import Pipeline, StepContext, StepOutput

    config = GenerationConfig(rows_per_shard=ROWS, actors=actors)

    def generate(context: StepContext) -> StepOutput:
        made = generate_images(
            cheap_plan(SHARDS * ROWS, config),
            store=context.artefacts,
            model="cheap",
            config=config,
            pool=Pool(memory_gb=0.2, actors=2),
            actor=functools.partial(CheapPainter, journal=str(journal(Path(folder))), delay_s=DELAY_S),
        )
        return StepOutput(outputs={"rows": made.rows})

    run = RunFolder.open(f"{folder}/run", {})
    pipeline = Pipeline(run)
    pipeline.step("generate-1", run=generate)
    with run.locked():
        ray.init(address="local", num_cpus=actors, include_dashboard=False, log_to_driver=False)
        pipeline.run()


def journal(folder: Path) -> Path:
    """One line for each shard that was begun."""
    return folder / "journal"


def begun(folder: Path) -> list[str]:
    path = journal(folder)
    return path.read_text().split() if path.exists() else []


def submission(folder: Path, actors: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, __file__, "--drive", str(folder), "--actors", str(actors)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def lost_by_kills(folder: Path, *, actors: int, kills: int, moments: random.Random) -> int:
    """Shards begun in vain over all kills."""
    for _ in range(kills):
        until = len(begun(folder)) + moments.randint(*KILL_AFTER)
        with submission(folder, actors) as driver:
            while len(begun(folder)) < until and driver.poll() is None:
                time.sleep(0.01)
            time.sleep(moments.uniform(0, DELAY_S))
            driver.kill()
    with submission(folder, actors) as driver:
        if driver.wait():
            raise SystemExit("the last submission failed")
    assert len(set(begun(folder))) == SHARDS
    return len(begun(folder)) - SHARDS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--drive", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        drive(options.drive, actors=options.actors)
        return
    with tempfile.TemporaryDirectory(prefix="bench-kill-") as folder:
        lost = lost_by_kills(
            Path(folder), actors=options.actors, kills=options.kills, moments=random.Random()
        )
    most = options.kills * options.actors
    print(f"driver killed {options.kills} times: {lost} of {SHARDS} shards were begun in vain, "
          f"{lost / most:.2f} per actor and kill (wanted at most 1)")  # fmt: skip


if __name__ == "__main__":
    main()
