"""The driver is killed with SIGKILL in every step of the loop: submitting again brings it to its end."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from uniemo_ray.head.process import client_environment, start_head, stop_head
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.record import StepRecord
from uniemo_ray.store.shards import committed, read_shards

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600)]
ROOT = Path(__file__).parents[2]
ROWS, EPOCHS, PER_EMOTION = 192, 2, 4
SMALL = (
    f"data.sketch_train={ROWS}",
    "data.sketch_val=16",
    "data.sketch_test=32",
    "data.rows_per_shard=64",
    *(f"stage{n}.{value}" for n in (1, 2) for value in (f"epochs={EPOCHS}", "batch_size=16")),
    *(f"stage{n}.checkpoint_every_s=0.2" for n in (1, 2)),
    "scorers.epochs=3",
    f"generation.per_emotion={PER_EMOTION}",
    "generation.rows_per_shard=8",
    "diffusion.steps=4",
    "evaluation.plain_per_emotion=2",
    "evaluation.pairs=20",
)
REGENERATE = """
import logging, sys
import ray
from uniemo_ray.config import GenerationConfig
from uniemo_ray.distributed.shards.generate import generate_images
from uniemo_ray.pools import Pool
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import read_shards
made, model, target = sys.argv[1:]
plan = read_shards(open_store(made), "plan/")
ray.init(log_to_driver=False)
config = GenerationConfig(rows_per_shard=5, actors=1)
generate_images(plan, store=open_store(target), model=model, config=config, pool=Pool(memory_gb=1.5))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What a driver needs to reach a head of our own."""
    folder = tmp_path_factory.mktemp("head")
    state = start_head(folder, num_cpus=2, store_mb=400)
    try:
        yield client_environment(state) | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    finally:
        stop_head(folder)


class Driver:
    """One submission of the loop as a process of its own."""

    def __init__(self, run: Path, environment: dict[str, str]) -> None:
        sets = [part for value in (f"run={run}", *SMALL) for part in ("--set", value)]
        command = [sys.executable, "jobs/feedback_loop.py", "--config", "jobs/configs/demo.yaml", *sets]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(self.process.stdout)  # grows while the process writes

    def steps(self, what: str) -> list[str]:
        """Names of the steps with this word behind their name, in order."""
        pattern = re.compile(rf"\] (\S+) \.\.\. {what}")
        return [found[1] for line in list(self.lines) if (found := pattern.search(line))]

    def kill(self) -> None:
        """SIGKILL to driver and children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=30)


def has_begun(run: Path, step: str) -> bool:
    """Whether the step has left something that the next attempt can go on from."""
    folders = [path for path in run.glob(f"artefacts/{step}-{12 * '?'}") if path.is_dir()]
    if step.startswith(("understanding", "joint")):
        return any(list(folder.glob("*/checkpoint_manager_snapshot.json")) for folder in folders)
    if step.startswith(("generate", "score-")):
        wanted = "images" if step.startswith("generate") else "scores"
        return any(list(folder.glob(f"manifest/{wanted}/*.json")) for folder in folders)
    return True


def run_with_kills(run: Path, environment: dict[str, str]) -> list[str]:
    """Submit until the run is finished; the steps in which a driver was killed."""
    killed: list[str] = []
    finished: set[str] = set()
    while True:
        driver = Driver(run, environment)
        while driver.process.poll() is None:
            current = driver.steps("(?:started|goes on)")
            if current and current[-1] not in killed and has_begun(run, current[-1]):
                driver.kill()
                break
            time.sleep(0.02)
        time.sleep(0.2)
        skipped, done = driver.steps("skipped"), driver.steps("done")
        assert finished <= {*skipped}, "".join(driver.lines)
        finished |= {*skipped, *done}
        if driver.process.returncode != -signal.SIGKILL:
            assert driver.process.returncode == 0, "".join(driver.lines)
            return killed
        open_step = driver.steps("(?:started|goes on)")[-1]
        if open_step not in done:
            killed.append(open_step)


def record(run: Path, step: str) -> StepRecord:
    return StepRecord.from_dict(json.loads((run / "steps" / f"{step}.json").read_text()))


def image_bytes(folder: Path) -> dict[str, bytes]:
    table = read_shards(open_store(str(folder)), "images/", columns=["image_id", "image"])
    ids = table["image_id"].to_pylist()
    assert len(set(ids)) == len(ids)
    return dict(zip(ids, table["image"].to_pylist(), strict=True))


def test_killed_in_every_step_and_submitted_again(tmp_path: Path, environment: dict[str, str]) -> None:
    run = tmp_path / "run"
    killed = run_with_kills(run, environment)
    names = [path.stem for path in (run / "steps").glob("*.json")]
    quick = {
        "names",
        "scorers",
        "coefficients",
        "filter-1",
    }  # may end between their first line and the signal
    assert set(names) - set(killed) <= quick
    assert json.loads((run / "summary.json").read_text())["rounds"][1]["understanding"]["accuracy"] >= 0

    for round_ in (1, 2):
        for stage in ("understanding", "joint"):
            step = record(run, f"{stage}-{round_}")
            history = json.loads((run / step.artefacts / "history.json").read_text())
            steps = [entry["step"] for entry in history if entry["kind"] == "step"]
            assert steps == list(range(1, len(steps) + 1))
            if round_ == 1:
                assert step.outputs == {"images": ROWS * EPOCHS, "left_out": 0}

    made = run / record(run, "generate-1").artefacts
    assert len(committed(open_store(str(made)), "images/")) == 4
    images = image_bytes(made)
    assert len(images) == 8 * PER_EMOTION
    model = run / record(run, "model-1").artefacts / "model"
    again = tmp_path / "again"
    command = [sys.executable, "-c", REGENERATE, str(made), str(model), str(again)]
    subprocess.run(command, env=environment, cwd=ROOT, check=True, timeout=300)
    assert image_bytes(again) == images
