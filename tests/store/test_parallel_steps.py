"""Steps side by side: records as in a serial run, and a kill costs no more than what ran."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from uniemo_ray.config import Config
from uniemo_ray.loop.step_tables import feedback_loop_steps
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.steps import Pipeline, StepContext, StepOutput, StepResult, current_step

SLEEP_S = 0.1


def run_demo_graph(uri: str, *, most: int) -> tuple[tuple[StepResult, ...], float, list[str]]:
    """The feedback loop's real graph with sleeps for steps; results, seconds, names of the threads."""

    def work(context: StepContext) -> StepOutput:
        threads.append(threading.current_thread().name)
        time.sleep(SLEEP_S)
        assert current_step() == context.name
        context.artefacts.write_bytes("result", context.name.encode())
        return StepOutput(outputs={"inputs": sorted(context.inputs)})

    threads: list[str] = []
    config = Config()
    pipeline = Pipeline(RunFolder.open(uri, config), has_room=lambda _step, running: len(running) < most)
    for row in feedback_loop_steps(config):
        pipeline.step(row.name, run=work, inputs=row.after, grows_by=row.grows_by, place=row.place)
    started = time.monotonic()
    return pipeline.run(), time.monotonic() - started, threads


def critical_path() -> int:
    """Steps of the longest chain of the loop."""
    depth: dict[str, int] = {}
    for row in feedback_loop_steps(Config()):
        depth[row.name] = 1 + max((depth[name] for name in row.after), default=0)
    return max(depth.values())


@pytest.mark.slow
def test_the_loop_takes_its_critical_path_and_leaves_the_records_of_a_serial_run(tmp_path: Path) -> None:
    serial, serial_s, threads = run_demo_graph(str(tmp_path / "serial"), most=1)
    assert set(threads) == {threading.current_thread().name}
    parallel, parallel_s, _ = run_demo_graph(str(tmp_path / "parallel"), most=99)

    def told(results: tuple[StepResult, ...]) -> list[tuple[object, ...]]:
        records = [result.record for result in results]
        return [(r.name, r.fingerprint, r.inputs, r.outputs, r.artefacts, r.status) for r in records]

    assert told(parallel) == told(serial)
    steps, chain = len(serial), critical_path()
    assert chain < 0.7 * steps
    assert parallel_s < serial_s - 0.5 * (steps - chain) * SLEEP_S
    assert all(result.is_skipped for result in run_demo_graph(str(tmp_path / "parallel"), most=99)[0])


# Is killed from outside while b, c and d run.
SIDE_BY_SIDE = """
import sys, time
from pathlib import Path
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.steps import Pipeline, StepOutput
uri, outside = sys.argv[1], Path(sys.argv[2])

def work(context):
    with (outside / "log").open("a") as log:
        log.write(context.name + "\\n")
    parts = context.artefacts.list()
    context.artefacts.write_bytes(f"part-{len(parts)}", b"x")
    if context.name in "bcd" and not (outside / "go").exists():
        (outside / f"at-{context.name}").touch()
        time.sleep(60)
    return StepOutput(outputs={"parts": len(parts) + 1})

pipeline = Pipeline(RunFolder.open(uri, {}), has_room=lambda step, running: True)
for name, inputs in (("a", []), ("b", ["a"]), ("c", ["a"]), ("d", ["a"]), ("e", ["b", "c", "d"])):
    pipeline.step(name, run=work, inputs=inputs)
pipeline.run()
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_ends_with_three_steps_under_way_resumes_all(tmp_path: Path, number: int) -> None:
    outside, uri = tmp_path / "outside", str(tmp_path / "run")
    outside.mkdir()
    command = [sys.executable, "-c", SIDE_BY_SIDE, uri, str(outside)]
    driver = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(list(outside.glob("at-*"))) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    driver.send_signal(number)
    _, errors = driver.communicate(timeout=30)
    assert driver.returncode == -number
    if number == signal.SIGINT:
        assert "stopped while b, c, d were running: submit again to go on" in errors
    (outside / "go").touch()
    subprocess.run(command, check=True)
    ran = (outside / "log").read_text().split()
    assert sorted(ran) == ["a", "b", "b", "c", "c", "d", "d", "e"]
    run = RunFolder.open(uri, {})
    parts = {name: run.record(name).outputs["parts"] for name in "abcde"}  # type: ignore[union-attr]
    assert parts == {"a": 1, "b": 2, "c": 2, "d": 2, "e": 1}
