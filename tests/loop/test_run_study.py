"""A whole study at tiny size: what arms share is made once, and only what is new is made later."""

import json
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from uniemo_ray.config import Config
from uniemo_ray.distributed.room import ClusterRoom
from uniemo_ray.experiments.expansion import declare_steps
from uniemo_ray.experiments.result import StudyResult
from uniemo_ray.experiments.study import Study, read_study
from uniemo_ray.jobs import experiments
from uniemo_ray.loop.run_study import StudyRun, collect_result, configure_arms, expand_study
from uniemo_ray.report.study import render_study
from uniemo_ray.store.record import StepRecord
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.steps import Pipeline

TRAINING = {"epochs": 1, "batch_size": 16, "validate_on": "none"}
STUDY = {
    "title": "Weights of the losses",
    "source": "ours",
    "question": "Does anything change?",
    "form": "bars",
    "columns": ["accuracy"],
    "arms": {
        "plain": {"label": "stage 1", "until": "stage_1"},
        "fewer": {"label": "fewer images", "until": "stage_1", "set": {"feedback.real_images": 32}},
    },
    "claims": ["plain > fewer in accuracy"],
    "sizes": {
        "embedded": {
            "until": "stage_1",
            "config": {
                "preset": "tiny",
                "data": {"sketch_train": 48, "sketch_val": 16, "sketch_test": 32, "rows_per_shard": 24},
                "stage1": TRAINING,
                "stage2": TRAINING,
                "scorers": {"epochs": 2},
                "feedback": {"rounds": 0},
                "resources": {"workers": 1},
            },
        }
    },
}
JOINT = {"label": "joint", "until": "stage_2"}


def asked(folder: Path, *, seeds: tuple[int, ...], **more: object) -> StudyRun:
    path = folder / "weights.yaml"
    path.write_text(yaml.safe_dump(STUDY | {"arms": {**STUDY["arms"], **more}}, sort_keys=False))  # type: ignore[dict-item]
    name, study = read_study(str(path))
    configs = configure_arms(study, size="embedded", overrides=[f"run={folder}/run"])
    return StudyRun(name, study, "embedded", configs, seeds, with_intervals=len(seeds) > 1)


def submit(study: StudyRun) -> tuple[StudyResult, Counter[str], RunFolder]:
    """The result, and how often steps of each row were made in this submission."""
    config = next(iter(study.configs.values()))
    run, expansion = RunFolder.open(config.run, config), study.expansion
    pipeline = Pipeline(run, has_room=ClusterRoom(config))
    declare_steps(pipeline, expansion)
    results = pipeline.run()
    made = Counter(each.record.name.partition("@")[0] for each in results if not each.is_skipped)
    records = {each.record.name: each.record for each in results}
    return collect_result(study, run, expansion, records), made, run


def ran_together(run: RunFolder, row: str, *, seed: int) -> bool:
    """Whether both steps of a row and seed were under way at the same time."""
    spans = []
    for key in run.store.list("steps/history"):
        record = StepRecord.from_dict(run.store.read_json(key))
        if record.name.startswith(f"{row}@") and record.settings["seed"] == seed:
            end = datetime.fromisoformat(record.finished_at).timestamp()
            spans.append((end - record.seconds, end))
    (first, second) = spans
    return max(first[0], second[0]) < min(first[1], second[1])


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("ray_session")
def test_nothing_is_made_twice(tmp_path, capsys):
    first, made, _ = submit(asked(tmp_path, seeds=(0,)))
    trained = {"understanding-1": 2, "answers-stage-1": 2}
    assert made == {"ingest": 1, "check-size": 2, "names": 1, **trained}
    assert first.claims[0].verdict == "no interval"

    two = asked(tmp_path, seeds=(0, 1))
    second, made, run = submit(two)
    assert made == {**trained, "check-size": 1}  # of 32 images: the subset has another seed
    assert [arm.cells["accuracy"].values[:1] for arm in second.arms] == [
        arm.cells["accuracy"].values for arm in first.arms
    ]
    assert [arm.images_seen for arm in second.arms] == [(48, 48), (32, 32)]
    assert second.work.asked > second.work.steps
    assert second.claims[0].images == second.test_images == 32
    assert second.claims[0].low <= second.claims[0].mean <= second.claims[0].high

    assert ran_together(run, "understanding-1", seed=1)

    third, made, run = submit(asked(tmp_path, seeds=(0,), joint=JOINT))
    added = ["features", "latents", "scorers", "coefficients", "joint-1", "answers-stage-2"]
    assert made == dict.fromkeys(added, 1)
    assert third.arms[0].cells["accuracy"].values == first.arms[0].cells["accuracy"].values
    assert submit(asked(tmp_path, seeds=(0,), joint=JOINT))[1] == {}

    # of all submissions together, no two records are of one row, its settings and its inputs
    history = [run.store.read_json(key) for key in run.store.list("steps/history")]
    same = Counter(
        json.dumps([each["name"].partition("@")[0], each["settings"], each["inputs"]], sort_keys=True)
        for each in history
    )
    assert sum(count - 1 for count in same.values()) == 0

    (tmp_path / "study.json").write_bytes(experiments.to_json(second))
    experiments.write_page(tmp_path / "docs" / "experiments.md", [tmp_path / "study.json"])
    assert "Weights of the losses" in (tmp_path / "docs" / "experiments.md").read_text()
    assert second.claims[0].sentence.replace("“", "") in render_study(second).replace("“", "")


IMAGES = {
    "title": "Prompts",
    "columns": ["judge_error", "emo_a_exact", "fid"],
    "arms": {
        "one": {"label": "1"},
        "two": {"label": "2", "set": {"generation.prompt": "<emotion>, a {object} in a {scene}"}},
    },
    "claims": ["one > two in judge_error"],
}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("ray_session")
def test_arms_that_differ_in_the_prompt_share_one_model(tmp_path):
    size = STUDY["sizes"]["embedded"]  # type: ignore[index]
    config = size["config"] | {"generation": {"per_emotion": 3}, "evaluation": {"pairs": 4}}
    sizes = {"embedded": {"until": "images", "measured_as": {"fid": "fd_clip"}, "config": config}}
    path = tmp_path / "prompts.yaml"
    path.write_text(yaml.safe_dump(STUDY | IMAGES | {"sizes": sizes}, sort_keys=False))
    name, study = read_study(str(path))
    configs = configure_arms(study, size="embedded", overrides=[f"run={tmp_path}/run"])
    result, made, run = submit(StudyRun(name, study, "embedded", configs, (0,), with_intervals=False))
    twice = {row for row, count in made.items() if count == 2}
    assert twice == {"generate-1", "score-1", "evaluate-1"}
    assert set(made.values()) == {1, 2}
    for number, arm in enumerate(result.arms):
        names = asked_names(study, configs, number)
        found = run.record(names["evaluate-1"]).metrics["generation"]  # type: ignore[union-attr]
        expected = [found["emo_a_clip"] - found["emo_a_exact"], found["emo_a_exact"], found["fd_clip"]]
        assert [arm.cells[column].mean for column in ("judge_error", "emo_a_exact", "fid")] == expected


def asked_names(study: Study, configs: dict[str, Config], number: int) -> Mapping[str, str]:
    """Names of an arm's steps with seed 0, by those of its table."""
    expansion = expand_study(study, configs, size="embedded", seeds=(0,))
    return list(expansion.names.values())[number]
