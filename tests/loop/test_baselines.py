"""The job `baselines`: its steps, what it refuses, and one run that is killed and submitted again."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uniemo_ray.config import Config
from uniemo_ray.data.readers import label_space
from uniemo_ray.head.process import client_environment, start_head, stop_head
from uniemo_ray.loop.baseline_checks import check_baselines
from uniemo_ray.loop.baseline_steps import answers_step, understanding_baseline_steps
from uniemo_ray.loop.declare import Row, declare
from uniemo_ray.loop.step_tables import feedback_loop_steps
from uniemo_ray.loop.steps.answers import read_hits
from uniemo_ray.loop.steps.finish_baselines import finish_baselines
from uniemo_ray.report.baselines import BaselinesSummary
from uniemo_ray.settings_file import load_config
from uniemo_ray.settings_view import unread
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.record import StepRecord
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.steps import Pipeline

ROOT = Path(__file__).parents[2]


def config_of(*overrides: str) -> Config:
    return load_config("baselines", list(overrides))


def fingerprints(tmp_path: Path, *overrides: str, table: list[Row] | None = None) -> dict[str, str]:
    config = config_of(f"run={tmp_path}/run", *overrides)
    pipeline = Pipeline(RunFolder.open(config.run, config))
    declare(pipeline, config, table or understanding_baseline_steps(config))
    return {name: step.fingerprint for name, step in pipeline._steps.items()}


def test_every_baseline_has_a_step_with_its_answers(tmp_path):
    names = list(fingerprints(tmp_path, "baselines.run=[zero_shot,coop,resnet,llava]"))
    assert names == [
        "ingest",
        "features",
        *("zero-shot", "answers-zero-shot", "coop", "answers-coop", "resnet", "answers-resnet"),
        "answers-llava",
    ]
    assert "features" not in fingerprints(tmp_path, "baselines.run=[fine_tuning]")


def test_data_and_features_are_those_of_the_loop(tmp_path):
    loop = fingerprints(tmp_path, table=feedback_loop_steps(config_of()))
    own = fingerprints(tmp_path)
    assert {name: own[name] for name in ("ingest", "features")} == {
        name: loop[name] for name in ("ingest", "features")
    }


@pytest.mark.parametrize(
    ("override", "redone"),
    [
        ("baselines.zero_shot.prompts=['a {}']", {"zero-shot", "answers-zero-shot"}),
        ("baselines.linear_probe.steps_per_decade=2", {"linear-probe", "answers-linear-probe"}),
        ("baselines.coop.position=middle", {"coop", "answers-coop"}),
        ("seed=3", {f"{a}{b}" for a in ("", "answers-") for b in ("coop", "cocoop", "fine-tuning")}),
        ("baselines.run=[zero_shot,linear_probe,coop,cocoop,fine_tuning,resnet]", set()),
        ("stage1.epochs=9", set()),
        ("resources.actors=7", set()),
    ],
)
def test_a_setting_redoes_its_own_baseline(tmp_path, override, redone):
    before, after = fingerprints(tmp_path), fingerprints(tmp_path, override)
    assert {name for name in before if before[name] != after[name]} == redone


def test_fewer_real_images_redo_what_is_fitted_to_them(tmp_path):
    before, after = fingerprints(tmp_path), fingerprints(tmp_path, "feedback.real_images=200")
    same = {"ingest", "features", "zero-shot", "answers-zero-shot"}
    assert {name for name in before if before[name] == after[name]} == same


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["baselines.coop.context_length=13"], r"baselines.coop.context_length is 13, .* leaves room for 12"),
        (["baselines.cocoop.context_length=3"], r"baselines.cocoop.start: 'a photo of a' has 4 tokens"),
        (
            ["baselines.coop.start=a photo of a", "baselines.coop.is_class_specific=true"],
            "all classes the same",
        ),
        (
            ["baselines.zero_shot.prompts=['a picture that makes people feel {}']"],
            r"has 20 tokens .* reads 16",
        ),
        (["baselines.run=[resnet]"], "resnet needs resnet101-63fe2227.pth in evaluation.weights_dir"),
        (["baselines.run=[blip2]"], "baselines.blip2.model is empty"),
        (
            ["baselines.run=[llava]", "baselines.llava.model=/none/here"],
            r"baselines.llava: .* cannot be loaded",
        ),
        (["encoder.clip=none"], "unknown CLIP 'none'"),
        (["baselines.cocoop.batch_size=1"], r"baselines.cocoop.batch_size 1 is less than one pass"),
        (["baselines.coop.batch_size=2000"], r"more than the 1400 training images"),
        (["data.kind=fi", "data.root=/none/here"], "no such folder"),
    ],
)
def test_mistakes_are_named_in_one_line_before_anything_starts(overrides, words):
    with pytest.raises(ValueError, match=words) as caught:
        check_baselines(config_of(*overrides))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("baselines.run=[clip]", r"baselines\.run.*zero_shot"),
        ("baselines.run=[]", r"baselines\.run.*at least one"),
        ("baselines.run=[coop,coop]", r"baselines\.run.*distinct"),
        ("baselines.zero_shot.prompts=[awe]", r"one \{\} in each prompt"),
        ("baselines.linear_probe.l2=[1,0.1]", r"baselines\.linear_probe\.l2.*rising order"),
        ("baselines.coop.positon=end", r"baselines\.coop\.positon.*unknown setting"),
    ],
)
def test_settings_that_are_none_are_refused(override, words):
    with pytest.raises(ValueError, match=words) as caught:
        config_of(override)
    assert "\n" not in str(caught.value)


def test_settings_that_fit_pass():
    check_baselines(config_of())
    check_baselines(config_of("baselines.run=[zero_shot,coop]", "data.valence=true"))


ASKED = ("zero_shot", "linear_probe", "coop")
SMALL = (
    f"baselines.run=[{','.join(ASKED)}]",
    "data={kind: sketch, sketch_train: 48, sketch_val: 16, sketch_test: 24, rows_per_shard: 16}",
    "baselines.coop={context_length: 2, epochs: 2, batch_size: 16}",
    "baselines.linear_probe={l2: [1, 100], steps_per_decade: 1}",
    "stage1.batch_size=16",
    "resources.parallel_steps=1",
)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What a driver needs to reach a head of our own."""
    folder = tmp_path_factory.mktemp("head")
    state = start_head(folder, num_cpus=2, store_mb=400)
    try:
        yield client_environment(state) | {"PYTHONPATH": str(ROOT)}
    finally:
        stop_head(folder)


def submit(run: Path, environment: dict[str, str], **fault: object) -> subprocess.CompletedProcess[str]:
    sets = [part for value in (f"run={run}", *SMALL) for part in ("--set", value)]
    more = {"UNIEMO_FAULT": json.dumps(fault)} if fault else {}
    command = [sys.executable, "jobs/baselines.py", *sets]
    return subprocess.run(
        command, cwd=ROOT, env=environment | more, text=True, capture_output=True, check=False, timeout=280
    )


def records(run: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in (run / "steps").glob("*.json")}


@pytest.mark.ray
@pytest.mark.integration
@pytest.mark.timeout(600)
def test_killed_and_submitted_again_it_makes_nothing_twice(tmp_path: Path, head: dict[str, str]) -> None:
    run = tmp_path / "run"
    killed = submit(run, head, point="recorded", skip=4)
    assert killed.returncode == -9, killed.stderr
    before = records(run)
    assert len(before) >= 4
    assert "answers-coop" not in before
    done = submit(run, head)
    assert done.returncode == 0, done.stderr
    assert "report: " in done.stdout
    after = records(run)
    assert {name: after[name] for name in before} == before
    assert done.stderr.count(" skipped ") >= len(before)

    summary = BaselinesSummary.model_validate_json((run / "baselines.json").read_bytes())
    assert [one.name for one in summary.baselines] == list(ASKED)
    assert [one.training_images for one in summary.baselines] == [0, 48, 48]
    config = config_of(f"run={run}", *SMALL)
    ids = None
    for one in summary.baselines:
        record = StepRecord.from_dict(after[answers_step(one.name)])
        hits = read_hits(open_store(f"{run}/{record.artefacts}"), label_space(config.data))
        assert np.mean(list(hits.values())) == pytest.approx(one.understanding.accuracy)
        assert record.metrics["accuracy"] == one.understanding.accuracy
        assert ids in (None, sorted(hits))  # the same images, so that they can be paired
        ids = sorted(hits)
    assert len(ids or ()) == 24
    assert min(one.behind for one in summary.baselines) == 0
    page = (run / "baselines.html").read_text()
    assert "CLIP, linear probe" in page
    assert "http" not in page.replace("http-equiv", "")

    third = submit(run, head)
    assert " started" not in third.stderr
    assert records(run) == after


@pytest.mark.ray
@pytest.mark.integration
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("ray_session")
def test_every_step_reads_what_it_declares_and_two_classes_go_through(tmp_path: Path) -> None:
    names = "zero_shot,linear_probe,cocoop,fine_tuning"
    sizes = "{context_length: 2, start: null, epochs: 1, batch_size: 16}"
    config = config_of(
        *SMALL,
        f"run={tmp_path}/run",
        f"baselines.run=[{names}]",
        f"baselines.cocoop={sizes}",
        "baselines.fine_tuning={epochs: 1, batch_size: 16}",
        "data.valence=true",
        "resources.workers=1",
    )
    check_baselines(config)
    run = RunFolder.open(config.run, config)
    pipeline = Pipeline(run)
    views = declare(pipeline, config, understanding_baseline_steps(config))
    with run.locked():
        summary = finish_baselines(run, config, pipeline.run())
    assert {name: idle for name, view in views.items() if (idle := unread(view))} == {}
    assert summary.classes == "sentiment"
    for one in summary.baselines:
        assert list(one.understanding.per_class) == ["positive", "negative"]
    assert os.path.exists(f"{tmp_path}/run/baselines.html")
