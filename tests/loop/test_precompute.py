"""What no training changes: computed once as a job, found finished by the loop, skipped for a random crop."""

import logging

import pytest
import torch

from uniemo_ray.config import Config
from uniemo_ray.data.images import decode_rgb, to_square, to_unit_range
from uniemo_ray.loop.declare import declare
from uniemo_ray.loop.step_tables import feedback_loop_steps, precompute_steps
from uniemo_ray.loop.steps import data
from uniemo_ray.loop.steps.training import training_set
from uniemo_ray.models.clip import embed_names, load_clip
from uniemo_ray.models.diffusion import load_diffusion
from uniemo_ray.settings_file import load_config
from uniemo_ray.settings_view import unread
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.steps import Pipeline, StepContext
from uniemo_ray.training.batches import decode_latents
from uniemo_ray.training.loading.pieces import read_columns
from uniemo_ray.training.name_embeddings import NameEmbeddings

SMALL = [
    "data.sketch_train=32",
    "data.sketch_val=8",
    "data.sketch_test=8",
    "data.rows_per_shard=16",
    "stage1.batch_size=16",
    "stage2.batch_size=16",
    "resources.memory_gb_per_actor=0.5",
    "resources.actors=1",
]


def run(tmp_path, *overrides: str) -> tuple[Config, dict, RunFolder]:
    config = load_config(None, [*SMALL, *overrides])
    folder = RunFolder.open(str(tmp_path / "run"), config)
    pipeline = Pipeline(folder)
    views = declare(pipeline, config, precompute_steps(config))
    results = {result.record.name: result for result in pipeline.run()}
    if not any(result.is_skipped for result in results.values()):
        assert {name: idle for name, view in views.items() if (idle := unread(view))} == {}
    return config, results, folder


def context_of(folder: RunFolder, results: dict) -> StepContext:
    records = {name: result.record for name, result in results.items()}
    return StepContext("joint-1", "f", "f", {}, folder, "artefacts/joint-1", inputs=records, is_resumed=False)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_the_loop_finds_what_the_job_has_computed(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(data, "NAMES_PER_SHARD", 16)  # the way of many names: shards and actors
    config, results, folder = run(tmp_path)
    assert list(results) == ["ingest", "check-size", "names", "features", "latents"]
    context = context_of(folder, results)
    names = data.read_names(context)
    stored = NameEmbeddings.load(context.artefacts_of("names").uri)(names.objects)
    torch.testing.assert_close(stored, embed_names(load_clip("tiny"), names.objects), atol=1e-5, rtol=1e-5)
    known = training_set(context, config, stage="joint", round_=1)
    row = read_columns(known, known.columns).slice(0, 1).to_pylist()[0]
    square = to_square(decode_rgb(row["image"], 10**6), config.diffusion.size_px)
    expected = load_diffusion("tiny").encode_images(to_unit_range(square[None]))
    torch.testing.assert_close(decode_latents([row["latent"]]), expected, atol=1e-2, rtol=1e-2)

    pipeline = Pipeline(folder)
    declare(pipeline, config, feedback_loop_steps(config))
    for name, result in results.items():
        assert folder.finished(name, pipeline._steps[name].fingerprint) == result.record

    # another target: the same shards, no latents, and the log says so
    with caplog.at_level(logging.INFO, logger="uniemo_ray"):
        crop, again, folder = run(tmp_path, "diffusion.target=crop")
    assert [name for name, result in again.items() if not result.is_skipped] == ["latents"]
    assert "latents are computed in every step" in caplog.text
    rows = training_set(context_of(folder, again), crop, stage="joint", round_=1)
    assert rows.rows == 32
    assert "latent" not in rows.columns


def test_every_stage_depends_on_the_embeddings(tmp_path) -> None:
    config = load_config(None, SMALL)
    pipeline = Pipeline(RunFolder.open(str(tmp_path / "run"), config))
    declare(pipeline, config, feedback_loop_steps(config))
    for name in ("understanding-1", "joint-1", "encode-2", "model-2"):
        assert "names" in pipeline._steps[name].inputs


def test_a_crop_needs_augmentation() -> None:
    with pytest.raises(ValueError, match=r"diffusion\.target is 'crop' but stage2\.augment is off"):
        load_config(None, ["diffusion.target=crop", "stage2.augment=false"])
