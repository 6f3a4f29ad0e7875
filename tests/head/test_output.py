"""What a person sees who runs a job on the local head: steps, progress, results, and no line of Ray's own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = (
    "data.sketch_train=128",
    "data.sketch_val=16",
    "data.sketch_test=16",
    "data.rows_per_shard=64",
    "stage1.epochs=2",
    "stage1.batch_size=16",
)
CLOCK = r"\d\d:\d\d:\d\d"
SHAPES = (
    r"Ray head at http://127\.0\.0\.1:\d+ \(loopback, token in .+\)",
    r"ray job submit --submission-id quiet-1 --working-dir .+ -- python jobs/understanding\.py .+",
    rf"{CLOCK} \[\d+/\d+\] \S+ \.\.\. (started|done in [\d.]+ s)",
    rf"{CLOCK} [a-z0-9-]+: \d+/\d+, [\d.]+/s, ETA \S+, 0 failures, \d+/\d+ shards, 1 node(; [a-z]+ .+)?",
    rf"{CLOCK} \S+ \[#*\.*\] step \d+/16 epoch [12]/2 \d+ images/s ETA \d+:\d\d loss [\d.]+ accuracy [\d.]+",
    r" *Understanding .+",
    r"[┏┡├└┃│].+[┓┩┤┘┃│]",
    r"result: .+",
    r"job quiet-1 succeeded",
    r"\d+:\d\d min, peak memory of all processes [\d.]+ GB",
    r"Ray head stopped",
)


@pytest.mark.integration  # a native library that traces its end under load is Ray's news, not ours
@pytest.mark.timeout(900)
def test_a_jobs_output_is_steps_progress_and_results(tmp_path: Path) -> None:
    sets = [part for value in (f"run={tmp_path / 'run'}", *SMALL) for part in ("--set", value)]
    python = [sys.executable, "-m"]
    head = [*python, "uniemo_ray.head", "--state", str(tmp_path / "head"), "--object-store-mb", "400", "run"]
    job = ["submit", "--name", "quiet", "jobs/understanding.py", "--", "--config", "demo", *sets]
    done = subprocess.run(
        [*head, "--", *python, "uniemo_ray.cli", *job],
        env={key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=800,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    assert done.returncode == 0, done.stdout
    strange = [line for line in lines if not any(re.fullmatch(shape, line) for shape in SHAPES)]
    assert strange == [], done.stdout
    unseen = [shape for shape in SHAPES if not any(re.fullmatch(shape, line) for line in lines)]
    assert unseen == [], done.stdout  # each shape is one that people do see
