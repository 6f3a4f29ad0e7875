"""Machines that are taken from a training stage, with notice and without."""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from tests.distributed.exactly_once_driver import ROOT, client_environment
from tests.distributed.training.preemption_case import PACE_S
from uniemo_ray.distributed.training import train_stage

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
NODE = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}
FAST = {"health_check_period_ms": 500, "health_check_timeout_ms": 1000, "health_check_failure_threshold": 3}
QUICK = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5", "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "0.5"}
RAY = str(Path(sys.executable).with_name("ray"))
ROWS, BATCH, EPOCHS = 400, 8, 2
EVERY_S = 1.0
TIMEOUT_S = 240


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head without CPUs and two machines with one each."""
    made = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "_system_config": FAST})
    try:
        for _ in range(2):
            made.add_node(**NODE)
        yield made
    finally:
        made.shutdown()


class Stage:
    """A stage that runs in a process of its own."""

    def __init__(self, cluster: Cluster, folder: Path, **resources: Any) -> None:
        self.cluster, self.folder, self.log = cluster, folder, folder / "log"
        self.log.mkdir()
        self.environment = client_environment(cluster) | QUICK
        settings = {
            "data": {"sketch_train": ROWS},
            "stage1": {
                "epochs": EPOCHS,
                "batch_size": BATCH,
                "warmup_steps": 2,
                "checkpoint_every_s": EVERY_S,
                "checkpoint_share": 1,
            },
            "resources": {"max_failures": 0, **resources},
        }
        case = "tests/distributed/training/preemption_case.py"
        self.output = (folder / "output").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, case, str(folder / "storage"), str(self.log), json.dumps(settings)],
            cwd=ROOT,
            env=self.environment,
            stdout=self.output,
            stderr=subprocess.STDOUT,
        )

    def text(self) -> str:
        return (self.folder / "output").read_text()

    def attempts(self) -> list[list[list[dict[str, Any]]]]:
        """Of each attempt the notes of each rank, one for each step that it began."""
        files = sorted(self.log.glob("*.jsonl"), key=lambda path: float(path.name.split("-")[0]))
        notes = [[json.loads(line) for line in path.read_text().splitlines()] for path in files]
        groups: list[list[list[dict[str, Any]]]] = []
        ranks: list[str] = []
        for path, steps in zip(files, notes, strict=True):
            rank = path.stem.rpartition("rank")[2]
            if not groups or rank in ranks:
                groups.append([])
                ranks = []
            groups[-1].append(steps)
            ranks.append(rank)
        return groups

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, f"{what} did not come:\n{self.text()}"
            time.sleep(0.1)

    def wait_for_steps(self, attempt: int, steps: int, ranks: int = 2) -> None:
        def is_there() -> bool:
            groups = self.attempts()
            return len(groups) >= attempt and min(map(len, groups[attempt - 1])) >= steps

        self.wait(is_there, f"step {steps} of attempt {attempt}")

    def machine_of(self, rank: int) -> Any:
        """The node that a rank runs on."""
        node_id = (self.folder / "storage" / "tiny" / "machines" / f"rank-{rank:05d}").read_text()
        return next(node for node in self.cluster.list_all_nodes() if node.node_id == node_id)

    def give_notice(self, node: Any, deadline_s: int) -> None:
        command = [RAY, "drain-node", "--address", self.environment["RAY_ADDRESS"], "--node-id", node.node_id]
        reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot machine taken back"]
        deadline = ["--deadline-remaining-seconds", str(deadline_s)]
        subprocess.run([*command, *reason, *deadline], check=True, env=self.environment, cwd=ROOT)

    def finish(self) -> dict[str, Any]:
        assert self.process.wait(timeout=TIMEOUT_S) == 0, self.text()
        told = [line for line in self.text().splitlines() if line.startswith('{"attempts"')]
        result: dict[str, Any] = json.loads(told[-1])  # what Ray says of a lost machine may come after it
        return result

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.output.close()


def test_five_machines_are_taken_and_no_image_comes_twice(cluster: Cluster, tmp_path: Path) -> None:
    """With `max_failures: 0`: three machines leave with notice, two without."""
    stage = Stage(cluster, tmp_path)
    told = [True, False, True, False, True]
    try:
        for attempt, is_told in enumerate(told, start=1):
            stage.wait_for_steps(attempt, 6)
            leaving = stage.machine_of(attempt % 2)
            cluster.add_node(**NODE)
            if is_told:
                stage.give_notice(leaving, 60)
                stage.wait(lambda n=attempt: f"attempt {n + 1}, from" in stage.text(), "the next attempt")
            cluster.remove_node(leaving, allow_graceful=False)
        result = stage.finish()
        output = stage.text()
    finally:
        stage.stop()
    assert result["attempts"] == 6, output
    assert result["steps"] == list(range(1, EPOCHS * ROWS // BATCH + 1))
    assert result["images"] == EPOCHS * ROWS
    groups = stage.attempts()
    starts = [0, *(int(step) for step in re.findall(r"attempt \d+, from step (\d+) of", output))]
    assert len(groups) == len(starts) == 6
    ends = [*starts[1:], EPOCHS * ROWS // BATCH]
    begun = [start + max(map(len, ranks)) for start, ranks in zip(starts, groups, strict=True)]
    lost = [steps - end for steps, end in zip(begun, ends, strict=True)]
    print("steps lost:", lost)
    most = (EVERY_S + 2.0) / PACE_S  # what it takes to upload, and for Ray to note it, comes on top
    assert all(steps <= (1 if is_told else most) for steps, is_told in zip(lost, told, strict=False)), lost
    kept: list[list[int]] = [[] for _ in range(EPOCHS)]
    for start, end, ranks in zip(starts, ends, groups, strict=True):
        for step in range(start, end):
            kept[step * BATCH // ROWS] += [row for rank in ranks for row in rank[step - start]["rows"]]
    for epoch in kept:
        assert max(Counter(epoch).values()) == 1
        assert len(epoch) == ROWS


def test_a_crash_on_a_machine_that_is_there_counts_as_a_failure(cluster: Cluster, tmp_path: Path) -> None:
    stage = Stage(cluster, tmp_path)
    try:
        stage.wait_for_steps(1, 3)
        pid = int(next(stage.log.glob("*-rank1.jsonl")).name.split("-")[1])
        os.kill(pid, 9)
        assert stage.process.wait(timeout=TIMEOUT_S) != 0
        assert "WorkerGroupError" in stage.text()
        assert "was taken away" not in stage.text()
    finally:
        stage.stop()


@pytest.mark.skipif(
    hasattr(train_stage, "_check_world"), reason="checkpoints fit one number of workers only, as yet"
)
def test_a_stage_goes_on_with_the_machines_that_are_left(cluster: Cluster, tmp_path: Path) -> None:
    stage = Stage(cluster, tmp_path, workers={"min": 1, "max": 2})
    try:
        stage.wait_for_steps(1, 6)
        cluster.remove_node(stage.machine_of(1), allow_graceful=False)
        result = stage.finish()
    finally:
        stage.stop()
    assert [len(ranks) for ranks in stage.attempts()] == [2, 1]
    assert result["steps"] == list(range(1, EPOCHS * ROWS // BATCH + 1))
    assert result["images"] == EPOCHS * ROWS
