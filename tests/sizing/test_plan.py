"""The plan as a whole: what fits, what does not, and what settings move."""

import json

import pytest

from uniemo_ray.models.clip import TINY_FOLDER as CLIP_FOLDER
from uniemo_ray.models.pipeline_folder import TINY_FOLDER as DIFFUSION_FOLDER
from uniemo_ray.settings_file import load_config
from uniemo_ray.sizing.plan import Plan, Rates, make_plan


@pytest.mark.slow
def test_a_plan_that_fits_and_one_that_does_not() -> None:
    config = load_config(None, ["stage1.zero_stage=0", "stage1.batch_size=64", "stage2.batch_size=64"])
    plan = make_plan(config, gpu_memory_bytes=48_000_000_000, rates=Rates(images_per_second=5.0))
    assert plan.warnings == ()
    assert [stage.chosen for stage in plan.memory] == [0, 1]
    assert [stage.batch_per_gpu for stage in plan.memory] == [32, 32]
    assert plan.cost is not None
    values = json.loads(json.dumps(plan.to_json()))
    assert values["memory"][1]["options"][2]["total"] == plan.memory[1].options[2].total
    first, second = plan.memory
    assert first.options[0].frozen == 0  # stage 1 loads no diffusion model
    assert second.options[0].frozen == 4 * sum(p.total for p in plan.parts[-3:])

    _, second = make_plan(config, gpu_memory_bytes=10**12, with_activations=False).memory
    between = (second.options[0].total + second.options[1].total) // 2
    tight = make_plan(config, gpu_memory_bytes=between, with_activations=False)
    assert not tight.has_activations
    assert len(tight.warnings) == 1
    assert "ZeRO 0 would fit (--set stage2.zero_stage=0)" in tight.warnings[0]
    tiny = make_plan(config, gpu_memory_bytes=1, with_activations=False)
    assert "set stage1.gradient_checkpointing, or take larger GPUs" in tiny.warnings[0]
    assert "set stage2.gradient_checkpointing, set diffusion.frozen_dtype to bf16" in tiny.warnings[1]
    assert len(tiny.warnings) == 2


@pytest.mark.slow
def test_memory_follows_the_images_at_once_and_the_plan_says_how_many_fit() -> None:
    def plan(memory: int, *sets: str) -> Plan:
        return make_plan(load_config(None, ["resources.workers=1", *sets]), gpu_memory_bytes=memory)

    whole = plan(10**12, "stage1.batch_size=64", "stage2.batch_size=64")
    assert [(stage.batch_per_gpu, stage.at_once) for stage in whole.memory] == [(64, 64)] * 2
    first = whole.memory[0].options[whole.memory[0].chosen]
    limit = first.total - first.activations + 20 * first.activations // 64  # room for 19 images and a little
    tight = plan(limit, "stage1.batch_size=64", "stage2.batch_size=1")
    assert "passes of 16 images would fit (--set stage1.micro_batch=16)" in tight.warnings[0]
    told = plan(limit, "stage1.batch_size=64", "stage2.batch_size=1", "stage1.micro_batch=16")
    assert [(stage.batch_per_gpu, stage.at_once) for stage in told.memory] == [(64, 16), (1, 1)]
    assert not any("stage 1" in line for line in told.warnings)
    uneven = load_config(None, ["resources.workers=3", "stage1.batch_size=64"])
    assert make_plan(uneven, gpu_memory_bytes=10**12, with_activations=False).memory[0].batch_per_gpu == 22


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "memory", "passes"),
    [("vit_l14_sd15", 24, (16, 16)), ("vit_l14_sdxl", 48, (64, 4))],
)
def test_the_largest_models_train_on_one_card(preset: str, memory: int, passes: tuple[int, int]) -> None:
    """At the paper's batch of 128 images: in passes of fewer, and with the checkpointing of the presets."""
    sets = [f"preset={preset}", "resources.workers=1"]
    sets += [f"stage{number}.micro_batch={size}" for number, size in zip((1, 2), passes, strict=True)]
    config = load_config(None, sets)
    assert config.stage1.batch_size == config.stage2.batch_size == 128
    plan = make_plan(config, gpu_memory_bytes=memory * 10**9)
    assert plan.has_activations
    assert plan.warnings == ()


def test_lora_moves_the_denoiser_into_the_engine() -> None:
    lora = load_config(None, ["diffusion.denoiser=lora"])
    options = {"gpu_memory_bytes": 10**11, "with_activations": False}
    frozen, trained = make_plan(load_config(None, []), **options), make_plan(lora, **options)
    part = {part.name: part for part in trained.parts}["denoiser"]
    assert 0 < part.stage2 < 0.1 * part.total
    before, after = frozen.memory[1].options[0], trained.memory[1].options[0]
    assert after.frozen < before.frozen
    assert after.weights - before.weights == 4 * part.total
    assert after.optimizer - before.optimizer == 8 * part.stage2


def test_half_frozen_models_take_half() -> None:
    options = {"gpu_memory_bytes": 10**11, "with_activations": False}
    full = make_plan(load_config(None, []), **options)
    half = make_plan(load_config(None, ["diffusion.frozen_dtype=bf16"]), **options)
    sizes = {part.name: part.total for part in full.parts}
    saved = full.memory[1].options[0].frozen - half.memory[1].options[0].frozen
    assert saved == 2 * (sizes["denoiser"] + sizes["text encoders"])


@pytest.mark.slow
def test_a_plan_of_stage_1_alone() -> None:
    config = load_config(None, ["data.kind=twitter2", "data.root=/data"])
    rates = Rates(images_per_second=1, generated_per_second=1)
    plan = make_plan(config, gpu_memory_bytes=10**11, train_images=600, rates=rates, with_stage_2=False)
    assert plan.diffusion is None
    assert [stage.stage for stage in plan.memory] == [1]
    assert [stage.name for stage in plan.work] == ["understanding"]
    assert plan.generated == plan.written.images == plan.cost.generation_hours == 0
    assert {part.name for part in plan.parts} == {"tower", "queries", "heads", "fusion"}
    assert not any(part.stage2 for part in plan.parts)
    (note,) = plan.notes
    assert "jobs/understanding.py runs it" in note
    heads = {part.name: part for part in plan.parts}["heads"]
    eight = make_plan(load_config(None, []), gpu_memory_bytes=10**11, with_activations=False).parts
    assert heads.stage1 < {part.name: part for part in eight}["heads"].stage1


def test_generation_has_as_many_gpus_as_actors() -> None:
    options = {"gpu_memory_bytes": 10**11, "with_activations": False}
    rates = Rates(images_per_second=1, generated_per_second=1)
    config = load_config(None, ["resources.workers=4", "generation.actors=2"])
    plan = make_plan(config, rates=rates, **options)
    assert plan.cost.generation_hours == plan.generated / 2 / 3600
    assert any("2 of 4 GPUs generate" in note for note in plan.notes)
    assert any("One training rate stands for both stages" in note for note in plan.notes)


def test_repeats_of_balanced_sampling_are_said() -> None:
    config = load_config(None, ["stage2.sampling=attribute", "stage2.most_repeats=3"])
    (note,) = make_plan(config, gpu_memory_bytes=10**11, with_activations=False).notes
    assert note.startswith("stage2.sampling 'attribute' is not counted: an epoch has up to 3 times")


def test_weights_in_storage_are_not_copied(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    places = [f"encoder.clip={CLIP_FOLDER.as_uri()}", f"diffusion.model={DIFFUSION_FOLDER.as_uri()}"]
    options = {"gpu_memory_bytes": 10**11, "with_activations": False}
    plan = make_plan(load_config(None, places), **options)
    assert plan.parts == make_plan(load_config(None, []), **options).parts
    assert not (tmp_path / "cache").exists()
    with pytest.raises(ValueError, match=r"has no open_clip_config\.json"):
        make_plan(load_config(None, [f"encoder.clip={tmp_path.as_uri()}"]), **options)
