"""A stage that starts without a machine, on a set that no object store of the cluster would hold."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed.exactly_once_driver import address_environment
from tools.rehearsal.head import LOOPBACK, ROOT, STORE_BYTES, autoscaling_head, machine_type

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
ROWS = 400
CASE = "tests/distributed/training/from_zero_case.py"


def test_a_set_larger_than_the_store_trains_from_no_machine(tmp_path: Path) -> None:
    labels = {name: {"uniemo/pool": name} for name in ("train", "data")}
    types = {name: machine_type(most=2, labels=own) for name, own in labels.items()}
    settings = {
        "data": {"sketch_train": ROWS},
        "stage1": {"epochs": 1, "batch_size": 40, "warmup_steps": 1},
        "resources": {"pools": {"train": {"labels": labels["train"], "memory_gb": 0.2}}},
    }
    with autoscaling_head(types, idle_minutes=5.0) as address:
        done = subprocess.run(
            [sys.executable, CASE, str(tmp_path), json.dumps(settings)],
            cwd=ROOT,
            env={**os.environ, **address_environment(address), **LOOPBACK},
            capture_output=True,
            text=True,
            check=False,
        )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert json.loads(done.stdout.splitlines()[-1]) == {"images": ROWS, "attempts": 1}
    size = sum(path.stat().st_size for path in (tmp_path / "shards").rglob("*.parquet"))
    assert size > 0.3 * STORE_BYTES
    assert "tiny: waits for a machine of pool train (uniemo/pool=train) since 0 s" in output
    assert [path.read_text() for path in sorted((tmp_path / "log").glob("pool-of-*"))] == ["train", "train"]
