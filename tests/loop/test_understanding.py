"""Understanding alone: its steps, what it refuses, one run on six classes and one on another set."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.data import layouts
from tests.models.tiny import write_clip, write_pipeline
from uniemo_ray import UniEmo
from uniemo_ray.config import Config
from uniemo_ray.emotions import EKMAN
from uniemo_ray.loop.declare import declare
from uniemo_ray.loop.preflight import check_inputs, check_understanding
from uniemo_ray.loop.step_tables import understanding_steps
from uniemo_ray.loop.steps.finish import artefacts, finish_understanding
from uniemo_ray.report.understanding import UnderstandingSummary, understanding_table
from uniemo_ray.settings_file import load_config
from uniemo_ray.settings_view import unread
from uniemo_ray.shipped import SHIPPED
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.steps import Pipeline


def config_of(tmp_path: Path, *overrides: str, **data: object) -> Config:
    return load_config(None, [f"run={tmp_path}/run", f"data={json.dumps(data)}", *overrides])


def declared(config: Config) -> dict[str, str]:
    pipeline = Pipeline(RunFolder.open(config.run, config))
    declare(pipeline, config, understanding_steps(config))
    return {name: step.fingerprint for name, step in pipeline._steps.items()}


def test_steps_of_training_and_of_judging(tmp_path: Path) -> None:
    trained = declared(config_of(tmp_path, kind="sketch"))
    assert list(trained) == [
        "ingest",
        "check-size",
        "names",
        "features",
        "scorers",
        "coefficients",
        "understanding",
        "model",
        "predict",
        "evaluate",
    ]
    judged = declared(config_of(tmp_path, "evaluation.model=tiny", kind="sketch"))
    assert list(judged) == ["ingest", "predict", "evaluate"]
    assert judged["ingest"] == trained["ingest"]


def test_another_model_is_judged_anew(tmp_path: Path) -> None:
    shipped = declared(config_of(tmp_path, "evaluation.model=tiny", kind="sketch"))
    other = tmp_path / "model"
    UniEmo.from_pretrained(SHIPPED).save_pretrained(other)
    found = declared(config_of(tmp_path, f"evaluation.model={other}", kind="sketch"))
    assert {name for name in found if found[name] != shipped[name]} == {"predict", "evaluate"}


def test_stage_two_and_generation_settings_mean_nothing_to_it(tmp_path: Path) -> None:
    plain = declared(config_of(tmp_path, kind="sketch"))
    changed = declared(config_of(tmp_path, "stage2.epochs=3", "generation.per_emotion=9", kind="sketch"))
    assert changed == plain


@pytest.mark.parametrize(
    ("make", "data", "words"),
    [
        (layouts.emotionroi, {"kind": "emotionroi"}, "say nothing certain about the classes anger, disgust"),
        (layouts.twitter2, {"kind": "twitter2"}, None),
        (layouts.fi, {"kind": "fi"}, None),
        (layouts.fi, {"kind": "fi", "valence": True}, None),
    ],
)
def test_a_set_that_the_model_cannot_be_judged_on_is_refused(
    tmp_path: Path, make: Any, data: dict[str, object], words: str | None
) -> None:
    config = config_of(tmp_path, "evaluation.model=tiny", root=str(make(tmp_path / "set")), **data)
    if words is None:
        check_understanding(config)
        return
    with pytest.raises(ValueError, match=words) as caught:
        check_understanding(config)
    assert "\n" not in str(caught.value)


def test_a_missing_model_and_a_missing_set_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model folder .*/none does not exist"):
        check_understanding(config_of(tmp_path, f"evaluation.model={tmp_path}/none", kind="sketch"))
    with pytest.raises(ValueError, match="no such folder"):
        check_understanding(config_of(tmp_path, kind="fi", root=f"{tmp_path}/none"))
    with pytest.raises(ValueError, match="unknown CLIP"):
        check_understanding(config_of(tmp_path, "encoder.clip=none", kind="sketch"))


def test_the_loop_refuses_what_only_this_job_does(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a setting of jobs/understanding.py"):
        check_inputs(config_of(tmp_path, "evaluation.model=tiny", kind="sketch"))


def run_job(config: Config) -> tuple[UnderstandingSummary, RunFolder, Any]:
    check_understanding(config)
    run = RunFolder.open(config.run, config)
    pipeline = Pipeline(run)
    views = declare(pipeline, config, understanding_steps(config))
    results = pipeline.run()
    assert {name: idle for name, view in views.items() if (idle := unread(view))} == {}
    return finish_understanding(run, config, results), run, {r.record.name: r.record for r in results}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_six_classes_are_trained_and_then_judged_on_another_set(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip")
    write_pipeline(tmp_path / "diffusion")
    layouts.emotionroi(tmp_path / "roi", train=7, test=3)
    models = [f"encoder={{clip: {tmp_path}/clip, query_length: 2}}", f"diffusion.model={tmp_path}/diffusion"]
    size = ["stage1={epochs: 1, batch_size: 4}", "resources.workers=1", "scorers.epochs=2"]
    first = config_of(tmp_path / "a", *models, *size, kind="emotionroi", root=f"{tmp_path}/roi")
    found, run, records = run_job(first)
    assert list(found.understanding.per_class) == list(EKMAN.labels)
    assert sum(map(sum, found.understanding.confusion)) == found.images == 18
    assert (found.classes, found.model_classes, found.is_trained_here) == ("ekman", "ekman", True)
    assert found.classifier_accuracy is not None
    model = UniEmo.from_pretrained(f"{run.store.uri}/model")
    assert model.parts.labels == EKMAN
    assert "anger, disgust, fear, joy, sadness, surprise" in model.parts.card
    _same_answers(model, tmp_path / "roi", artefacts(run, records, "predict").local_path_or_none())

    layouts.class_folders(tmp_path / "other", EKMAN.labels, 5)
    second = config_of(
        tmp_path / "b",
        f"evaluation.model={run.store.uri}/model",
        kind="folders",
        labels="ekman",
        root=f"{tmp_path}/other",
    )
    judged, _, records = run_job(second)
    assert (judged.images, judged.is_trained_here, judged.model) == (6, False, found.model)
    assert set(records) == {"ingest", "predict", "evaluate"}
    assert understanding_table(judged).row_count == 4 + 6


def _same_answers(model: UniEmo, root: Path, predictions: Path | None) -> None:
    """The judged probabilities are those that a user of the model folder gets."""
    rows = pq.read_table(predictions / "test").to_pylist() if predictions else []
    for row in rows[:3]:
        (picture,) = root.glob(f"images/{row['image_id']}")
        seen = model.understand(picture)[0].emotions
        np.testing.assert_allclose(list(seen.values()), row["probabilities"], atol=1e-5)
    assert len(rows) == 18
