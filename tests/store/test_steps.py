"""What is finished is skipped, what changed is redone, and a kill costs no more than the step it hit."""

import json
import logging
import math
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uniemo_ray.config import FilterConfig
from uniemo_ray.store.errors import RunLockedError, StoreError
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.steps import Pipeline, StepContext, StepOutput

NAMES = ("ingest", "train", "generate", "filter", "report")
SETTINGS: dict[str, dict[str, Any]] = {name: {"value": i} for i, name in enumerate(NAMES)}
INPUTS = {"train": ["ingest"], "generate": ["train"], "filter": ["generate"], "report": ["train", "filter"]}

# Dies by SIGKILL once in each step, at the point that the marker names.
KILLED = """
import os, signal, sys
from pathlib import Path
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.steps import Pipeline, StepOutput
uri, outside = sys.argv[1], Path(sys.argv[2])

def die_once(name):
    marker = outside / name
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)

def work(context):
    with (outside / "log").open("a") as log:
        log.write(context.name + "\\n")
    parts = context.artefacts.list()
    context.artefacts.write_bytes(f"part-{len(parts)}", b"x")
    die_once(context.name)
    total = sum(record.outputs["total"] for record in context.inputs.values())
    return StepOutput(outputs={"total": total + 1, "parts": len(parts) + 1})

pipeline = Pipeline(RunFolder.open(uri, {}))
for name, inputs in (("a", []), ("b", ["a"]), ("c", ["a", "b"])):
    pipeline.step(name, run=work, inputs=inputs)
pipeline.run()
"""


class Work:
    """A pipeline of five steps that notes which of them ran."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.ran: list[str] = []

    def submit(
        self, *, code_version: int = 1, fail: str = "", **changed: dict[str, Any]
    ) -> tuple[list[str], dict[str, str]]:
        """Submit with some settings changed; which steps ran, and the content of all artefacts."""
        self.ran = []

        def work(context: StepContext) -> StepOutput:
            self.ran.append(context.name)
            before = [context.artefacts_of(name).read_bytes("result").decode() for name in context.inputs]
            if context.name == fail:
                context.artefacts.write_bytes("half", b"")
                raise ZeroDivisionError("in the middle")
            text = f"{context.name}={context.settings['value']}({','.join(before)})"
            context.artefacts.write_bytes("result", text.encode())
            return StepOutput(outputs={"file": "result"}, metrics={"length": len(text)})

        run = RunFolder.open(self.uri, SETTINGS | changed)
        pipeline = Pipeline(run)
        for name in NAMES:
            version = code_version if name == "filter" else 1
            pipeline.step(
                name,
                run=work,
                settings=(SETTINGS | changed)[name],
                inputs=INPUTS.get(name, []),
                code_version=version,
            )
        results = pipeline.run()
        assert [result.record.name for result in results if not result.is_skipped] == self.ran
        records = {result.record.name: result.record for result in results}
        assert all(run.record(name) == record for name, record in records.items())
        texts = {n: run.store.sub(r.artefacts).read_bytes("result").decode() for n, r in records.items()}
        return self.ran, texts


def test_a_second_submission_skips_everything(uri: str) -> None:
    work = Work(uri)
    ran, texts = work.submit()
    assert ran == list(NAMES)
    assert texts["report"] == "report=4(train=1(ingest=0()),filter=3(generate=2(train=1(ingest=0()))))"
    assert work.submit() == ([], texts)


def test_a_change_redoes_what_depends_on_it_and_the_old_setting_finds_the_old_files(uri: str) -> None:
    work = Work(uri)
    _, old = work.submit()
    ran, new = work.submit(filter={"value": 30})
    assert ran == ["filter", "report"]
    assert new["filter"].startswith("filter=30(")
    assert new["train"] == old["train"]
    assert work.submit() == ([], old)
    assert work.submit(filter={"value": 30}) == ([], new)
    assert work.submit(ingest={"value": 7})[0] == list(NAMES)
    assert work.submit(report={"value": 7})[0] == ["report"]
    assert work.submit(code_version=2)[0] == ["filter", "report"]


def test_lost_artefacts_or_a_lost_record_are_made_again(uri: str) -> None:
    work = Work(uri)
    work.submit()
    run = RunFolder.open(uri, {})
    record = run.record("generate")
    assert record is not None
    run.store.delete(f"{record.artefacts}/result")
    assert work.submit()[0] == ["generate"]
    run.store.delete("steps/train.json")  # only the pointer: the commit itself is still there
    assert work.submit()[0] == []
    run.store.delete(f"steps/history/train-{run.record('train').fingerprint[:12]}.json")  # type: ignore[union-attr]
    assert work.submit()[0] == ["train"]


def test_a_failed_step_commits_nothing_and_goes_on_in_its_own_folder(
    uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    work = Work(uri)
    with pytest.raises(ZeroDivisionError):
        work.submit(fail="generate")
    run = RunFolder.open(uri, {})
    assert run.record("train") is not None
    assert run.record("generate") is None
    assert re.search(r"\[3/5\] generate \.\.\. failed after 0\.\d s", caplog.text)
    assert work.submit()[0] == ["generate", "filter", "report"]
    assert "[3/5] generate ... resuming" in caplog.text
    record = run.record("generate")
    assert record is not None
    assert run.store.sub(record.artefacts).list() == ["half", "result"]


def test_the_log_counts_steps_and_tells_times(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    work = Work(str(tmp_path))
    work.submit()
    assert "[2/5] train ... started" in caplog.messages
    assert any(re.fullmatch(r"\[2/5\] train \.\.\. done in \d+\.\d s", line) for line in caplog.messages)
    caplog.clear()
    work.submit()
    pattern = r"\[5/5\] report \.\.\. skipped \(finished \d{4}-\d\d-\d\d \d\d:\d\d\)"
    assert any(re.fullmatch(pattern, line) for line in caplog.messages)


def test_the_commit_record_tells_how_it_came_about(tmp_path: Path) -> None:
    Work(str(tmp_path)).submit()
    record = json.loads((tmp_path / "steps" / "report.json").read_text())
    assert set(record["inputs"]) == {"train", "filter"}
    assert record["settings"] == {"value": 4}
    assert (
        record["inputs"]["train"]
        == json.loads((tmp_path / "steps" / "train.json").read_text())["fingerprint"]
    )
    assert record["outputs"] == {"file": "result"}
    assert record["metrics"]["length"] > 20
    assert record["versions"]["uniemo_ray"]
    assert record["status"] == "finished"
    assert record["seconds"] >= 0


@pytest.mark.slow
def test_a_driver_killed_in_every_step_gets_to_the_end_by_being_submitted_again(
    uri: str, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    codes = []
    for _ in range(4):
        codes.append(subprocess.run([sys.executable, "-c", KILLED, uri, str(outside)]).returncode)
    assert codes == [-signal.SIGKILL] * 3 + [0]
    assert (outside / "log").read_text().split() == ["a", "a", "b", "b", "c", "c"]
    record = RunFolder.open(uri, {}).record("c")
    assert record is not None
    assert record.outputs == {"total": 4, "parts": 2}


def test_a_second_driver_is_refused(tmp_path: Path) -> None:
    def submit_again(_: StepContext) -> StepOutput:
        with pytest.raises(RunLockedError, match="is in use by process"):
            Pipeline(RunFolder.open(str(tmp_path), {})).run()
        return StepOutput()

    pipeline = Pipeline(RunFolder.open(str(tmp_path), {}))
    pipeline.step("a", run=submit_again)
    assert not pipeline.run()[0].is_skipped


def test_a_step_that_lost_the_lease_commits_nothing(uri: str) -> None:
    def be_overtaken(context: StepContext) -> StepOutput:
        context.run.store.write_json("lock/00000009.json", {})
        return StepOutput()

    run = RunFolder.open(uri, {})
    pipeline = Pipeline(run)
    pipeline.step("a", run=be_overtaken)
    with pytest.raises(StoreError, match="another driver has taken over"):
        pipeline.run()
    assert run.store.list("steps") == []


def test_disk_full_is_one_line_and_the_rest_of_the_run_survives(tiny_disk: Path) -> None:
    def first(context: StepContext) -> StepOutput:
        context.artefacts.write_bytes("a", bytes(100_000))
        return StepOutput()

    def big(context: StepContext) -> StepOutput:
        path = context.artefacts.local_path_or_none("big")
        assert path is not None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(700_000))  # as a library would, knowing nothing of stores
        return StepOutput()

    filler = tiny_disk / "filler"
    filler.write_bytes(bytes(400_000))
    uri = str(tiny_disk / "run")
    for attempt in range(2):
        pipeline = Pipeline(RunFolder.open(uri, {}))
        pipeline.step("first", run=first)
        pipeline.step("big", run=big, inputs=["first"])
        if attempt == 0:
            with pytest.raises(StoreError, match=r"disk full while writing .*: free some space") as caught:
                pipeline.run()
            assert "\n" not in str(caught.value)
            filler.unlink()
        else:
            assert [result.is_skipped for result in pipeline.run()] == [True, False]


def test_numbers_of_other_libraries_and_nan_are_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def measure(_: StepContext) -> StepOutput:
        metrics = {"a": np.float32(0.5), "b": {"c": [math.nan, 1.0]}, "d": np.array([1, 2])}
        return StepOutput(metrics=metrics, status="finished with 2 failures")

    pipeline = Pipeline(RunFolder.open(str(tmp_path), {}))
    pipeline.step("measure", run=measure)
    caplog.set_level(logging.INFO)
    record = pipeline.run()[0].record
    assert record.metrics == {"a": 0.5, "b": {"c": [None, 1.0]}, "d": [1, 2]}
    assert record.status == "finished with 2 failures"
    assert "measure.metrics.b.c[0] is nan: recorded as null" in caplog.text
    assert "s, finished with 2 failures" in caplog.text


@pytest.mark.parametrize(
    ("declare", "text"),
    [
        (lambda p: p.step("Bad Name", run=StepOutput), "expected a step name such as"),
        (lambda p: p.step("a", run=StepOutput), "step 'a' is declared twice"),
        (lambda p: p.step("b", run=StepOutput, inputs=["a", "z"]), "step 'b' needs z: declare it before"),
        (
            lambda p: p.step("b", run=StepOutput, settings={"x": {1}}),
            r"settings of step b\.x: set has no stable",
        ),
    ],
)
def test_wrong_declarations(tmp_path: Path, declare: Callable[[Pipeline], Any], text: str) -> None:
    pipeline = Pipeline(RunFolder.open(str(tmp_path), {}))
    pipeline.step("a", run=lambda _: StepOutput())
    with pytest.raises(ValueError, match=text):
        declare(pipeline)


def test_settings_are_compared_by_value(tmp_path: Path) -> None:
    pipeline = Pipeline(RunFolder.open(str(tmp_path), {}))
    same = [
        pipeline.step("a", run=lambda _: StepOutput(), settings=FilterConfig(eta=20)),
        Pipeline(RunFolder.open(str(tmp_path), {})).step(
            "a", run=lambda _: StepOutput(), settings=FilterConfig().model_dump()
        ),
    ]
    assert same[0].fingerprint == same[1].fingerprint
    other = pipeline.step("b", run=lambda _: StepOutput(), settings=FilterConfig(eta=20))
    assert other.fingerprint != same[0].fingerprint
