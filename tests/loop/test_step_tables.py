"""Which steps a changed setting redoes, and that nothing else is redone."""

import json

import pytest

from uniemo_ray.loop import step_tables
from uniemo_ray.loop.declare import Row, declare
from uniemo_ray.loop.step_tables import feedback_loop_steps
from uniemo_ray.settings_file import load_config
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.steps import Pipeline, StepOutput


def fingerprints(tmp_path, *overrides):
    config = load_config(None, list(overrides))
    pipeline = Pipeline(RunFolder.open(str(tmp_path / "run"), config))
    declare(pipeline, config, feedback_loop_steps(config))
    return {name: step.fingerprint for name, step in pipeline._steps.items()}


def changed(tmp_path, *overrides):
    before, after = fingerprints(tmp_path), fingerprints(tmp_path, *overrides)
    return {name for name in before if before[name] != after.get(name)}


OF_BEFORE = {
    "ingest": "1fc47a2a2ab5",
    "joint-1": "4bff07f257c2",
    "generate-1": "bddd0be2e8aa",
    "mix-1": "8d120dcc6ab4",
    "generate-2": "202c990e51ab",
}
"""Fingerprints of the default run before there were emotion spaces and averaged weights."""
SECOND_ROUND = {
    f"{name}-2" for name in ("understanding", "joint", "encode", "model", "generate", "score", "evaluate")
}


def test_order_of_the_default_run(tmp_path):
    names = list(fingerprints(tmp_path))
    assert names[:6] == ["ingest", "check-size", "names", "features", "latents", "scorers"]
    assert names.index("filter-1") < names.index("mix-1") < names.index("understanding-2")
    assert "filter-2" not in names


def test_filter_settings_redo_only_what_follows_the_filter(tmp_path):
    assert changed(tmp_path, "filter.eta=10") == {"filter-1", "mix-1", *SECOND_ROUND}


def test_stage_two_keeps_stage_one(tmp_path):
    redone = changed(tmp_path, "stage2.epochs=3")
    assert {"joint-1", "generate-1", "understanding-2"} <= redone
    assert not redone & {
        "ingest",
        "features",
        "latents",
        "scorers",
        "coefficients",
        "understanding-1",
        "reference-real",
    }


@pytest.mark.parametrize(
    "override",
    [
        "fusion.members=[cls]",
        "fusion.use_coefficients=false",
        "fusion.joint_training=false",
        "fusion.start=plain",
        "fusion.match=mapped",
        "fusion.condition_head=classifier",
        "losses.condition=cross_entropy",
        "losses.margin=0.5",
        "losses.distance_of=logits",
        "losses.understanding_weight=1",
        "losses.condition_weight=0",
        "losses.cross_entropy_weight=0.1",
        "losses.diffusion_weight=0",
        "stage2.epochs=3",
        "diffusion.denoiser=lora",
        "diffusion.steps=3",
        "diffusion.text_widths=[64]",
        "diffusion.target=crop",
        "diffusion.size_px=128",
    ],
)
def test_no_setting_of_stage_two_redoes_the_first_stage_one(tmp_path, override):
    redone = changed(tmp_path, override)
    assert {"joint-1", "model-1"} <= redone
    assert not redone & {"ingest", "features", "names", "scorers", "coefficients", "understanding-1"}


@pytest.mark.parametrize("override", ["losses.temperature=0.1", "losses.names=verbatim", "stage1.epochs=3"])
def test_a_setting_of_stage_one_redoes_both_stages(tmp_path, override):
    assert {"understanding-1", "joint-1"} <= changed(tmp_path, override)


def test_more_images_keep_the_model(tmp_path):
    redone = changed(tmp_path, "generation.per_emotion=200")
    assert "generate-1" in redone
    assert not redone & {"model-1", "joint-1", "generate-plain"}


@pytest.mark.parametrize(
    "override",
    ["generation.dtype=bf16", "generation.compile=true", "generation.png_level=1", "resources.tf32=false"],
)
def test_how_images_are_computed_redoes_them_and_no_training_before(tmp_path, override):
    redone = changed(tmp_path, override)
    assert {"generate-1", "generate-plain", "score-1", "mix-1"} <= redone
    before = {"ingest", "features", "latents", "scorers", "understanding-1", "joint-1", "encode-1", "model-1"}
    assert not redone & before


@pytest.mark.parametrize(
    "override", ["resources.actors=7", "stage1.checkpoint_every_s=5", "generation.actors=3"]
)
def test_what_does_not_decide_results_redoes_nothing(tmp_path, override):
    assert changed(tmp_path, override) == set()


def test_settings_that_came_later_leave_older_runs_as_they_are(tmp_path):
    found = fingerprints(tmp_path)
    assert {name: found[name][:12] for name in OF_BEFORE} == OF_BEFORE


@pytest.mark.parametrize(
    ("override", "first"),
    [
        ("emotion_space.kind=mixture", "model-1"),
        ("emotion_space.kind=neighbours", "model-1"),
        ("generation.prompt='<emotion>, a {object}'", "generate-1"),
        ("stage2.ema_decay=0.99", "joint-1"),
        ("stage1.reduce_dtype=bf16", "understanding-1"),
        ("data.labels=ekman", "ingest"),
        ("data={labels: [calm, tense], sketch_classes: {calm: [awe], tense: [fear]}}", "ingest"),
    ],
)
def test_settings_that_came_later_count_when_they_are_set(tmp_path, override, first):
    redone = changed(tmp_path, override)
    order = [row.name for row in feedback_loop_steps(load_config(None, []))]
    assert min(redone, key=order.index) == first


@pytest.mark.parametrize("changed_setting", ["sketch_classes", "valences"])
def test_what_labels_stand_for_redoes_everything_from_the_data_on(tmp_path, changed_setting):
    own = {"labels": ["calm", "tense"], "sketch_classes": {"calm": ["awe"], "tense": ["fear"]}}
    other = {
        "sketch_classes": {"calm": ["awe", "contentment"], "tense": ["fear"]},
        "valences": {"calm": "positive", "tense": "negative"},
    }
    before, after = (
        fingerprints(tmp_path / name, f"data={json.dumps(data)}")
        for name, data in (("a", own), ("b", own | {changed_setting: other[changed_setting]}))
    )
    assert not {name for name in before if before[name] == after[name]}


def test_later_epochs_redo_only_later_rounds(tmp_path):
    assert changed(tmp_path, "stage1.later_epochs=2") == SECOND_ROUND
    joint = SECOND_ROUND - {"understanding-2"}
    assert changed(tmp_path, "stage2.later_epochs=2") == joint


def test_each_round_has_its_own_number_of_epochs():
    config = load_config(None, ["stage1.epochs=5", "stage1.later_epochs=2", "stage2.epochs=3"])
    assert [config.for_round(r).stage1.epochs for r in (1, 2, 3)] == [5, 2, 2]
    assert [config.for_round(r).stage2.epochs for r in (1, 2)] == [3, 3]


def test_data_redoes_everything(tmp_path):
    assert changed(tmp_path, "data.sketch_seed=1") == set(fingerprints(tmp_path))


def test_true_fid_needs_its_weights_and_a_step(tmp_path):
    (tmp_path / "pt_inception-2015-12-05-6726825d.pth").touch()
    assert "inception" not in fingerprints(tmp_path)
    override = f"evaluation.weights_dir={tmp_path}"
    assert "inception" in fingerprints(tmp_path, override)
    measuring = {"evaluate-1", "evaluate-2", "reference-plain", "reference-real"}
    assert changed(tmp_path, override) == measuring


def test_published_files_that_come_later_redo_what_measures(tmp_path):
    override = f"evaluation.weights_dir={tmp_path}"
    measuring = {"evaluate-1", "evaluate-2", "reference-plain", "reference-real"}
    (tmp_path / "resnet50_places365.pth.tar").touch()  # alone it gives nothing
    before = fingerprints(tmp_path, override)
    for name in ("alexnet-owt-7be5be79.pth", "resnet50-0676ba61.pth", "time_2023-11-12_03-29-best.pth"):
        (tmp_path / name).touch()
        after = fingerprints(tmp_path, override)
        assert {step for step in before if before[step] != after[step]} == measuring
        assert before.keys() == after.keys()
        before = after


def test_the_filter_knows_nothing_of_the_judge_that_evaluates(tmp_path):
    """It ranks by the run's own classifier: a public judge changes no score, no verdict, no training set."""
    override = f"evaluation.weights_dir={tmp_path}"
    (tmp_path / "time_2023-11-12_03-29-best.pth").touch()
    with_judge = fingerprints(tmp_path, override)
    (tmp_path / "time_2023-11-12_03-29-best.pth").unlink()
    without = fingerprints(tmp_path, override)
    redone = {step for step in without if without[step] != with_judge[step]}
    assert redone == {"evaluate-1", "evaluate-2", "reference-plain", "reference-real"}
    rows = {row.name: row for row in feedback_loop_steps(load_config(None, [override]))}
    for name in ("scorers", "score-1", "filter-1", "mix-1"):
        assert not any(setting.startswith("evaluation") for setting in rows[name].reads)


def test_other_names_or_protocols_of_metrics_are_measured_again(tmp_path, monkeypatch):
    """What an earlier release left as `emo_a` or `fid` is never shown under these names."""
    (tmp_path / "pt_inception-2015-12-05-6726825d.pth").touch()
    override = f"evaluation.weights_dir={tmp_path}"
    rows = {row.name: row for row in feedback_loop_steps(load_config(None, [override]))}
    assert rows["inception"].facts == {"protocols": ["fid", "fid_train"]}
    for name in ("evaluate-1", "reference-plain", "reference-real"):
        assert "emo_a_clip" in rows[name].facts["metrics"]
        assert "emo_a" not in rows[name].facts["metrics"]  # its file is not there
    after = fingerprints(tmp_path, override)
    monkeypatch.setattr(step_tables, "measured", lambda config: {})  # as an earlier release declared them
    before = fingerprints(tmp_path, override)
    redone = {step for step in before if before[step] != after[step]}
    assert redone == {"evaluate-1", "evaluate-2", "reference-plain", "reference-real"}


def test_rounds(tmp_path):
    assert "joint-2" not in fingerprints(tmp_path, "feedback.rounds=0")
    assert {"filter-2", "joint-3"} <= set(fingerprints(tmp_path, "feedback.rounds=2"))


MEASURING = {"evaluate-1", "evaluate-2", "reference-plain", "reference-real"}


@pytest.mark.parametrize("override", ["diffusion.size_px=128", "data.max_pixels=1000000"])
def test_what_measures_knows_the_size_that_it_measures_at(tmp_path, override):
    assert changed(tmp_path, override) >= MEASURING


@pytest.mark.parametrize("override", ["generation.threads=2", "generation.micro_batch=4"])
def test_a_model_knows_how_it_paints(tmp_path, override):
    assert changed(tmp_path, override) >= {"model-1", "model-2", "generate-1", "generate-plain"}


def test_a_larger_stage_two_batch_keeps_stage_one(tmp_path):
    redone = changed(tmp_path, "stage2.batch_size=64")
    assert {"check-size", "joint-1"} <= redone
    assert not redone & {"names", "features", "understanding-1"}


def test_every_name_in_a_table_is_a_setting(tmp_path):
    config = load_config(None, [])
    pipeline = Pipeline(RunFolder.open(str(tmp_path / "run"), config))
    with pytest.raises(ValueError, match=r"'losses\.nonsense' is no setting"):
        declare(
            pipeline, config, [Row("step", lambda context, config: StepOutput(), reads=["losses.nonsense"])]
        )


LABELS = "labels: {uniemo/pool: x}, memory_gb: 4, cpus: 2"


@pytest.mark.parametrize(
    "pools",
    [
        f"{{generate: {{{LABELS}, fallback: [{{a: b}}], actors: 9, price_per_node_hour: 3}}}}",
        f"{{train: {{{LABELS}, gpus: 1}}, features: {{gpus: 0.25}}}}",
    ],
)
def test_where_work_runs_redoes_nothing(tmp_path, pools):
    assert changed(tmp_path, f"resources.pools={pools}") == set()


def test_the_kind_of_processor_of_generation_counts_whichever_setting_says_it(tmp_path):
    by_pool = fingerprints(tmp_path, "resources.pools={generate: {gpus: 0.5}}")
    by_all = fingerprints(tmp_path, "resources.use_gpu=true")
    assert by_pool == by_all
    assert by_pool["generate-1"] != fingerprints(tmp_path)["generate-1"]


def test_every_step_of_the_cluster_names_its_pool():
    rows = feedback_loop_steps(load_config("demo", []))
    pools = {row.name: row.pool for row in rows}
    assert {name for name, pool in pools.items() if pool is None} == {"check-size"}
    assert (
        pools
        | {
            "ingest": "data",
            "features": "features",
            "latents": "generate",
            "mix-1": "generate",
            "generate-plain": "generate",
            "score-plain": "features",
            "understanding-2": "train",
            "joint-1": "train",
            "filter-1": "data",
        }
        == pools
    )
    assert {row.pool for row in rows if row.place == "workers"} == {"train"}
