"""The job of the baselines: its steps, what it shares with the loop, and a run that is submitted twice."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.loop.test_declared_settings import TINY
from uniemo_ray.baselines.generation.build import build_baseline
from uniemo_ray.baselines.generation.stage import BaselineStage
from uniemo_ray.config import Config
from uniemo_ray.config.generation_baselines import TrainedBaseline
from uniemo_ray.data.readers import label_space
from uniemo_ray.inference.provenance import encode_png
from uniemo_ray.loop.declare import declare, view_of_row
from uniemo_ray.loop.generation_baseline_checks import check_generation_baselines
from uniemo_ray.loop.generation_baseline_steps import METHODS, generation_baseline_steps
from uniemo_ray.loop.step_tables import feedback_loop_steps
from uniemo_ray.loop.steps.finish_generation_baselines import (
    BASELINES,
    finish_generation_baselines,
    own_rounds,
)
from uniemo_ray.report.generation_baselines import (
    TITLES,
    GenerationBaselinesSummary,
    generation_baselines_table,
)
from uniemo_ray.settings_file import load_config
from uniemo_ray.settings_view import unread
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.record import StepRecord
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.shards import commit_shard
from uniemo_ray.store.steps import Pipeline, StepResult
from uniemo_ray.training.batches import encode_latent

OWN = "generation_baselines"


def config_of(tmp_path: Path, *overrides: str) -> Config:
    return load_config("demo", [f"run={tmp_path}/run", *TINY, *overrides])


def declared(config: Config) -> dict[str, str]:
    pipeline = Pipeline(RunFolder.open(config.run, config))
    declare(pipeline, config, generation_baseline_steps(config))
    return {name: step.fingerprint for name, step in pipeline._steps.items()}


def changed(tmp_path: Path, *overrides: str) -> set[str]:
    before, after = declared(config_of(tmp_path)), declared(config_of(tmp_path, *overrides))
    return {name for name in before if before[name] != after.get(name)}


def test_every_baseline_has_steps_and_a_title() -> None:
    assert list(METHODS) == list(TITLES)
    assert set(Config().generation_baselines.run) == set(METHODS) - {"plain_prompt_sdxl"}


def test_only_what_a_baseline_needs_is_made(tmp_path: Path) -> None:
    names = list(declared(config_of(tmp_path, f"{OWN}.run=[plain_prompt]")))
    assert names == [
        "ingest",
        "features",
        "scorers",
        "reference-real",
        "generate-plain-prompt",
        "score-plain-prompt",
        "evaluate-plain-prompt",
    ]
    names = list(declared(config_of(tmp_path, f"{OWN}.run=[soft_prompt]")))
    assert "latents" in names
    assert "coefficients" not in names
    assert "coefficients" in declared(config_of(tmp_path, f"{OWN}.run=[emogen]"))


def test_the_loop_and_the_baselines_share_their_common_steps(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    pipeline = Pipeline(RunFolder.open(config.run, config))
    declare(pipeline, config, feedback_loop_steps(config))
    own = declared(config)
    shared = {name for name, step in pipeline._steps.items() if own.get(name) == step.fingerprint}
    assert shared == {"ingest", "features", "latents", "scorers", "coefficients", "reference-real"}


def test_another_baseline_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    one = declared(config_of(tmp_path, f"{OWN}.run=[plain_prompt]"))
    every = declared(config_of(tmp_path))
    assert one.items() <= every.items()


FOLLOWING = ("generate", "score", "evaluate")


@pytest.mark.parametrize(
    ("override", "redone"),
    [
        ("plain_prompt.prompt='feel {emotion}'", {f"{verb}-plain-prompt" for verb in FOLLOWING}),
        ("soft_prompt.lr=1", {f"{verb}-soft-prompt" for verb in ("train", *FOLLOWING)}),
        ("textual_inversion.prompt='{} in a park'", {f"{verb}-textual-inversion" for verb in FOLLOWING}),
        ("emogen.attribute_weight=1", {f"{verb}-emogen" for verb in ("train", *FOLLOWING)}),
        (
            "emogen.images_per_emotion=3",
            {f"{verb}-emogen" for verb in ("train", "clouds", *FOLLOWING)},
        ),
        ("dreambooth.prior_weight=2", {f"{verb}-dreambooth" for verb in ("train", *FOLLOWING)}),
        (
            "dreambooth.class_images=3",
            {f"{verb}-dreambooth" for verb in ("prior", "train", *FOLLOWING)},
        ),
        (
            "per_emotion=5",
            {
                f"{verb}-{name.replace('_', '-')}"
                for verb in FOLLOWING
                for name in Config().generation_baselines.run
            },
        ),
    ],
)
def test_a_setting_redoes_what_depends_on_it(tmp_path: Path, override: str, redone: set[str]) -> None:
    assert changed(tmp_path, f"{OWN}.{override}") == redone


def test_class_images_are_made_only_where_they_are_wanted(tmp_path: Path) -> None:
    names = declared(config_of(tmp_path, f"{OWN}.dreambooth.prior_preservation=false"))
    assert "prior-dreambooth" not in names
    assert "train-dreambooth" in names


@pytest.mark.parametrize("override", ["resources.actors=7", "generation.actors=1", "generation.score=later"])
def test_where_work_runs_redoes_nothing(tmp_path: Path, override: str) -> None:
    assert changed(tmp_path, override) == set()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([f"{OWN}.run=[plain_prompt_sdxl]"], "needs generation_baselines.plain_prompt.sdxl_model"),
        (["diffusion.model=/nowhere"], "diffusion.model '/nowhere'"),
        (["encoder.clip=none"], "unknown CLIP"),
        (["data={kind: fi, root: /nowhere}"], "no such folder"),
    ],
)
def test_bad_input_ends_in_one_line(tmp_path: Path, overrides: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        check_generation_baselines(config_of(tmp_path, *overrides))
    assert "\n" not in str(caught.value)


def record(name: str, *, inputs: dict[str, str], settings: object, metrics: object) -> StepRecord:
    return StepRecord(
        name=name,
        fingerprint=f"f-{name}",
        settings=settings,
        code_version=1,
        inputs=inputs,
        outputs={},
        metrics=metrics,
        seconds=1.0,
        finished_at="2026-01-01T00:00:00+00:00",
        versions={},
        status="finished",
        has_artefacts=False,
    )


@pytest.mark.parametrize(
    ("scorers", "seed", "rounds"), [("f-scorers", 0, [1, 2]), ("others", 0, [1]), ("f-scorers", 1, [1])]
)
def test_rounds_of_the_loop_count_where_they_were_measured_alike(
    tmp_path: Path, scorers: str, seed: int, rounds: list[int]
) -> None:
    run, same = RunFolder.open(str(tmp_path / "run"), Config()), {"seed": 0, "evaluation": {"pairs": 4}}
    known = {
        name: record(name, inputs={}, settings=same if name == "reference-real" else {}, metrics={})
        for name in ("features", "scorers", "reference-real")
    }
    with run.locked():
        for round_ in (1, 2):
            judge = scorers if round_ == 2 else "f-scorers"
            settings = {**same, "data.labels": "mikels", "seed": seed if round_ == 2 else 0}
            run.commit(record(f"score-{round_}", inputs={"scorers": judge}, settings={}, metrics={}))
            measured = {"generation": {"images": round_}}
            inputs = {"features": "f-features"}
            run.commit(record(f"evaluate-{round_}", inputs=inputs, settings=settings, metrics=measured))
        found = list(own_rounds(run, known))
    assert [item["round"] for item in found] == rounds
    assert [item["generation"]["images"] for item in found] == rounds


def raw(latents: int) -> dict[str, np.ndarray]:
    """Rows as a worker reads them, of any baseline."""
    png = encode_png(np.zeros((40, 40, 3), dtype=np.uint8), {}, level=1)
    values = {
        "image_id": [f"image-{number}" for number in range(latents)],
        "image": [png] * latents,
        "emotion": ["awe", "fear"] * (latents // 2),
        "scene": ["beach", None] * (latents // 2),
        "objects": [["lion"], []] * (latents // 2),
        "latent": [encode_latent(torch.randn(8, 8, 8)) for _ in range(latents)],
    }
    columns = {name: np.empty(latents, dtype=object) for name in values}
    for name, column in columns.items():
        column[:] = values[name]
    return columns


@pytest.mark.parametrize("name", ["soft_prompt", "textual_inversion", "emogen", "dreambooth"])
def test_a_training_reads_what_its_step_declares(tmp_path: Path, name: TrainedBaseline) -> None:
    """A worker sees the step's view of the config, which refuses all other settings."""
    config = config_of(tmp_path, f"{OWN}.run=[{name}]")
    row = next(
        row for row in generation_baseline_steps(config) if row.name == f"train-{name.replace('_', '-')}"
    )
    view, _ = view_of_row(row, config)
    prior = commit_prior(tmp_path / "prior") if name == "dreambooth" else None
    alpha = {"scene": {"beach": [0.5] * 8}, "object": {"lion": [0.25] * 8}}
    names = {"scenes": ("beach",), "objects": ("lion",), "coefficients": alpha} if name == "emogen" else {}
    parts = build_baseline(BaselineStage(config=view, baseline=name, prior=prior, **names))
    batch = parts.collate(raw(4), epoch=0, is_training=True)
    before = [p.detach().clone() for p in parts.objective.parameters()]
    optimizer = torch.optim.AdamW(parts.groups, lr=1e-3)
    loss = parts.objective(batch.tensors)["loss"]
    loss.backward()
    optimizer.step()
    moved = [not torch.equal(old, new) for old, new in zip(before, parts.objective.parameters(), strict=True)]
    assert torch.isfinite(loss)
    assert any(moved)
    assert {id(p) for group in parts.groups for p in group["params"]} == {
        id(p) for p in parts.objective.parameters()
    }


OF_TWO = (
    "data={labels: [calm, tense], sketch_classes: {calm: [contentment, awe], tense: [anger, fear]}}",
    f"{OWN}.textual_inversion.initializer=photo",  # the tiny vocabulary has neither word
)


@pytest.mark.parametrize("name", ["soft_prompt", "textual_inversion", "emogen"])
def test_own_labels_train_as_many_words_as_there_are(tmp_path: Path, name: TrainedBaseline) -> None:
    config = config_of(tmp_path, f"{OWN}.run=[{name}]", *OF_TWO)
    check_generation_baselines(config)
    view, _ = view_of_row(
        next(row for row in generation_baseline_steps(config) if row.name.startswith("train-")), config
    )
    alpha = {"scene": {"beach": [0.5, 0.25]}, "object": {"lion": [0.0, 1.0]}}
    names = {"scenes": ("beach",), "objects": ("lion",), "coefficients": alpha} if name == "emogen" else {}
    parts = build_baseline(BaselineStage(config=view, baseline=name, **names))
    rows = raw(4) | {"emotion": np.array(["calm", "tense"] * 2, dtype=object)}
    batch = parts.collate(rows, epoch=0, is_training=True)
    assert batch.tensors["emotion"].tolist() == [0, 1, 0, 1]
    assert torch.isfinite(parts.objective(batch.tensors)["loss"])
    if name == "emogen":
        assert parts.objective.confidence.tolist() == [[0.5, 0.25], [0.0, 1.0]]
    else:
        assert parts.objective.tokens.vectors.shape[0] == 2


def commit_prior(folder: Path) -> str:
    labels = list(label_space(Config().data).labels)
    latents = [encode_latent(torch.randn(8, 8, 8)) for _ in labels]
    table = pa.table({"image_id": labels, "emotion": labels, "latent": latents})
    commit_shard(open_store(str(folder)), "prior/part-00000", table, plan_hash="p")
    return str(folder)


FEW = (
    f"{OWN}.run=[plain_prompt,emogen]",
    f"{OWN}.per_emotion=2",
    f"{OWN}.emogen={{batch_size: 16, hidden: 16, images_per_emotion: 4}}",
    "resources.workers=1",
)


Ran = tuple[RunFolder, list[StepResult], GenerationBaselinesSummary, dict[str, list[str]]]


def run_job(config: Config) -> Ran:
    """What the job does; and what each step has declared in vain."""
    run = RunFolder.open(config.run, config)
    pipeline = Pipeline(run)
    views = declare(pipeline, config, generation_baseline_steps(config))
    with run.locked():
        results = list(pipeline.run())
        summary = finish_generation_baselines(run, config, results)
    return run, results, summary, {name: idle for name, view in views.items() if (idle := unread(view))}


@pytest.mark.ray
@pytest.mark.integration
@pytest.mark.timeout(900)
def test_two_baselines_from_data_to_table(ray_session: None, tmp_path: Path) -> None:
    config = config_of(tmp_path, *FEW)
    check_generation_baselines(config)
    run, results, summary, idle = run_job(config)
    assert idle == {}
    written = json.loads(run.store.read_bytes(BASELINES))
    assert GenerationBaselinesSummary.model_validate(written) == summary
    assert [item.name for item in summary.baselines] == ["plain_prompt", "emogen"]
    assert [item.generation.images for item in summary.baselines] == [16, 16]
    made = {result.record.name: result.record for result in results}
    assert set(made["clouds-emogen"].outputs["images"].values()) == {4}
    assert [item.training_images for item in summary.baselines] == [0, 32]  # four of each label
    for item in (*(each.generation for each in summary.baselines), summary.real):
        assert item.fd_clip is not None
        assert item.emo_a_exact is not None
    assert generation_baselines_table(summary)
    again = run_job(config)
    assert all(result.is_skipped for result in again[1])
    assert len(again[1]) == len(results)
    assert again[2].baselines == summary.baselines
