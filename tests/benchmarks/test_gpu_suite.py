"""The tests of GPUs without a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_they_are_skipped_and_say_why() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "UNIEMO_DEVICE"}
    options = ["-q", "-rs", "-n", "0", "-m", "gpu", "-p", "no:cacheprovider", "tests/gpu/test_pools.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=Path(__file__).parents[2],
        env=environment | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SKIPPED [1]" in done.stdout
    assert "no GPU" in done.stdout
    assert "passed" not in done.stdout
