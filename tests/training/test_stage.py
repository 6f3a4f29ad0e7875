"""Both stages with small random models of the real architectures, through DeepSpeed."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision import transforms as T

from tests.models.tiny import OBJECTS, SCENES, XL_WIDTHS, write_xl_pipeline
from uniemo_ray.config import Config, DiffusionConfig
from uniemo_ray.data.images import to_unit_range_tensor
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.models.clip import load_clip
from uniemo_ray.models.pipeline_folder import text_widths
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import commit_shard
from uniemo_ray.training.engine import Engine
from uniemo_ray.training.joint_objective import JointObjective
from uniemo_ray.training.name_embeddings import embed_table
from uniemo_ray.training.objectives import UnderstandingObjective
from uniemo_ray.training.parts import StageParts
from uniemo_ray.training.stage import build_stage, load_net, load_trained_diffusion
from uniemo_ray.training.stage_settings import StageSettings


def settings(folders: dict[str, Path], stage: str, **values: Any) -> dict[str, Any]:
    config: dict[str, Any] = {
        "encoder": {"clip": str(folders["clip"]), "query_length": 3, "interactive_layers": 1},
        "diffusion": {"model": str(folders["diffusion"]), "size_px": 16},
        "stage1": {"batch_size": 4},
        "stage2": {"batch_size": 4},
    }
    for section, update in values.pop("sections", {}).items():
        config[section] = {**config.get(section, {}), **update}
    return {"stage": stage, "config": config, "scenes": SCENES, "objects": OBJECTS, **values}


def as_settings(values: dict[str, Any]) -> StageSettings:
    return StageSettings(**{**values, "config": Config.model_validate(values["config"])})


def alpha() -> dict[str, dict[str, list[float]]]:
    return {"scene": {name: [0.5] * 8 for name in SCENES}, "object": {name: [0.25] * 8 for name in OBJECTS}}


def rows(count: int = 4) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    images = np.empty(count, dtype=object)
    for i in range(count):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, size=(32, 32, 3), dtype=np.uint8)).save(file, format="PNG")
        images[i] = file.getvalue()
    objects = np.empty(count, dtype=object)
    objects[:] = [np.array([OBJECTS[i % len(OBJECTS)]], dtype=object) for i in range(count)]
    return {
        "image_id": np.array([f"i{i}" for i in range(count)], dtype=object),
        "image": images,
        "emotion": np.array([EMOTIONS[i % 8] for i in range(count)], dtype=object),
        "scene": np.array([SCENES[i % len(SCENES)] for i in range(count)], dtype=object),
        "objects": objects,
    }


def make(
    values: dict[str, Any], *, zero_stage: int = 0
) -> tuple[Engine, StageParts, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    parts = build_stage(as_settings(values))
    checked = as_settings(values)
    train = checked.train.model_copy(update={"zero_stage": zero_stage})
    engine = Engine(parts.objective, parts.groups, train=train, total_steps=20, seed=0)
    return engine, parts, parts.collate(rows(), epoch=0, is_training=False).tensors


@pytest.mark.parametrize("zero_stage", [1, 3])
def test_understanding_learns_a_batch_at_every_zero_stage(folders: dict[str, Path], zero_stage: int) -> None:
    values = settings(folders, "understanding")
    plain, _, batch = make(values)
    engine, parts, _ = make(values, zero_stage=zero_stage)
    assert isinstance(parts.objective, UnderstandingObjective)
    expected = [plain.step(batch).metrics for _ in range(3)]
    actual = [engine.step(batch).metrics for _ in range(3)]
    assert set(actual[0]) >= {"loss", "scene_loss", "object_loss", "class_loss", "accuracy"}
    for one, other in zip(actual, expected, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
        assert one["loss"] == pytest.approx(
            0.25 * one["scene_loss"] + 0.25 * one["object_loss"] + 0.5 * one["class_loss"], rel=1e-5
        )
    losses = [engine.step(batch).metrics["loss"] for _ in range(10)]
    assert losses[-1] < actual[0]["loss"]


@pytest.mark.parametrize("zero_stage", [1, 3])
def test_joint_learns_a_batch_and_leaves_the_diffusion_model(
    folders: dict[str, Path], zero_stage: int
) -> None:
    engine, parts, batch = make(settings(folders, "joint", coefficients=alpha()), zero_stage=zero_stage)
    assert isinstance(parts.objective, JointObjective)
    assert not any("denoiser" in name or "vae" in name for name, _ in parts.objective.named_parameters())
    metrics = engine.step(batch).metrics
    assert metrics["loss"] == pytest.approx(
        0.3 * metrics["understanding_loss"]
        + 0.3 * metrics["condition_loss"]
        + 0.4 * metrics["diffusion_loss"],
        rel=1e-5,
    )
    assert metrics["diffusion_loss"] > 0
    state = engine.state_dict(parts.exports["net"])
    assert set(state) == set(parts.exports["net"].state_dict())
    assert all(value.dtype == torch.float32 and value.numel() for value in state.values())
    assert torch.equal(state["scenes.coefficients"], torch.full((len(SCENES), 8), 0.5))


def test_the_diffusion_loss_alone_reaches_the_queries(folders: dict[str, Path]) -> None:
    """The paper's implicit feedback."""
    weights = {"understanding_weight": 0.0, "condition_weight": 0.0, "diffusion_weight": 1.0}
    values = settings(folders, "joint", coefficients=alpha(), sections={"losses": weights})
    torch.manual_seed(0)
    parts = build_stage(as_settings(values))
    batch = parts.collate(rows(), epoch=0, is_training=True).tensors
    parts.objective(batch)["loss"].backward()
    net = parts.exports["net"]
    for name in ("encoder.scene_queries", "encoder.object_queries"):
        assert net.get_parameter(name).grad.abs().max() > 0


def test_latents_given_replace_the_vae(folders: dict[str, Path]) -> None:
    torch.manual_seed(0)
    parts = build_stage(as_settings(settings(folders, "joint", coefficients=alpha())))
    assert isinstance(parts.objective, JointObjective)
    batch = parts.collate(rows(), epoch=0, is_training=False).tensors
    parts.objective.eval()
    latents = parts.objective._diffusion[0].encode_images(to_unit_range_tensor(batch["unit_pixels"]))
    given = {**{k: v for k, v in batch.items() if k != "unit_pixels"}, "latents": latents}
    losses = []
    for each in (batch, given):
        torch.manual_seed(1)
        losses.append(parts.objective(each)["diffusion_loss"].item())
    assert losses[0] == losses[1]


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_a_denoiser_that_trains_is_registered_and_exported(folders: dict[str, Path], mode: str) -> None:
    values = settings(folders, "joint", coefficients=alpha(), sections={"diffusion": {"denoiser": mode}})
    engine, parts, batch = make(values, zero_stage=1)
    assert set(parts.exports) == {"net", "denoiser"}
    before = engine.state_dict(parts.exports["denoiser"], is_trained_only=True)
    engine.step(batch)
    after = engine.state_dict(parts.exports["denoiser"], is_trained_only=True)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert all(("lora" in name) == (mode == "lora") for name in before)


def test_norms_and_biases_of_a_denoiser_that_trains_do_not_decay(folders: dict[str, Path]) -> None:
    sections = {"diffusion": {"denoiser": "full"}, "stage2": {"batch_size": 4, "weight_decay": 0.5}}
    parts = build_stage(as_settings(settings(folders, "joint", coefficients=alpha(), sections=sections)))
    denoiser = parts.exports["denoiser"]
    groups = [group for group in parts.groups if group["name"] == "denoiser"]
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert set(decays) == {id(p) for p in denoiser.parameters()}
    assert decays[id(denoiser.conv_in.weight)] == 0.5
    assert decays[id(denoiser.conv_in.bias)] == decays[id(denoiser.conv_norm_out.weight)] == 0


def test_weights_are_handed_from_stage_to_stage(folders: dict[str, Path], tmp_path: Path) -> None:
    first, parts, batch = make(settings(folders, "understanding"))
    first.step(batch)
    trained = first.state_dict(parts.exports["net"])
    assert not any(name.startswith(("fusion.", "condition_head.")) for name in trained)
    path = keep(trained, tmp_path / "understanding.safetensors")
    given = settings(folders, "joint", weights=path, coefficients=alpha())
    state = build_stage(as_settings(given)).exports["net"].state_dict()
    assert torch.equal(state["encoder.scene_queries"], trained["encoder.scene_queries"])
    assert state["fusion.offset"].any()  # a fresh fusion starts at words
    state["fusion.offset"] += 1
    state["condition_head.bias"] += 1
    before = keep(state, tmp_path / "joint.safetensors")
    again = build_stage(as_settings({**given, "fusion_weights": before})).exports["net"].state_dict()
    assert torch.equal(again["encoder.scene_queries"], trained["encoder.scene_queries"])
    assert torch.equal(again["fusion.offset"], state["fusion.offset"])
    assert torch.equal(again["condition_head.bias"], state["condition_head.bias"])


def keep(weights: dict[str, torch.Tensor], path: Path) -> str:
    save_file({name: value.contiguous() for name, value in weights.items()}, path)
    return str(path)


def test_a_later_stage_one_starts_from_a_stage_two_without_its_fusion(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    joint = build_stage(as_settings(settings(folders, "joint", coefficients=alpha()))).exports["net"]
    path = keep(joint.state_dict(), tmp_path / "joint.safetensors")
    net = build_stage(as_settings(settings(folders, "understanding", weights=path))).exports["net"]
    assert not hasattr(net, "fusion")
    assert torch.equal(net.scene_projection.weight, joint.scene_projection.weight)


def test_an_imported_fusion_goes_on_where_it_is(folders: dict[str, Path], tmp_path: Path) -> None:
    """It has no offset and no scale and looks fresh, but its biases were trained."""
    sections = {"fusion": {"start": "plain"}}
    values = settings(folders, "joint", coefficients=alpha(), sections=sections)
    state = build_stage(as_settings(values)).exports["net"].state_dict()
    bias = "fusion.phi.cls.2.bias"
    assert state[bias].any()
    path = keep(state, tmp_path / "net.safetensors")
    again = build_stage(as_settings(settings(folders, "joint", weights=path, coefficients=alpha())))
    found = again.exports["net"].state_dict()
    assert torch.equal(found[bias], state[bias])
    assert not found["fusion.offset"].any()


def test_weights_that_lack_a_part_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    net = build_stage(as_settings(settings(folders, "understanding"))).exports["net"]
    weights = {name: value for name, value in net.state_dict().items() if name != "classifier.0.bias"}
    path = keep(weights, tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match=r"net\.safetensors .* lacks classifier\.0\.bias"):
        build_stage(as_settings(settings(folders, "understanding", weights=path)))


def test_members_of_the_fusion_change_no_other_part(folders: dict[str, Path]) -> None:
    """Rows of an ablation start alike, so that they differ by the setting alone."""
    nets = [
        build_stage(
            as_settings(
                settings(folders, "joint", coefficients=alpha(), sections={"fusion": {"members": members}})
            )
        ).exports["net"]
        for members in (["cls"], ["cls", "scene", "object"])
    ]
    few, many = (net.state_dict() for net in nets)
    assert set(few) < set(many)
    assert all(torch.equal(value, many[name]) for name, value in few.items())


def test_the_seed_decides_every_fresh_part(folders: dict[str, Path]) -> None:
    def fresh(seed: int, drawn: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(drawn)
        values = settings(folders, "joint", coefficients=alpha())
        values["config"]["seed"] = seed
        state: dict[str, torch.Tensor] = build_stage(as_settings(values)).exports["net"].state_dict()
        return state

    one, same, other = fresh(0, 1), fresh(0, 2), fresh(1, 1)
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    names = [
        "encoder.scene_queries",
        "encoder.object_queries",
        "encoder.scene_block.layers.0.mlp.0.weight",
        "encoder.object_block.layers.0.mlp.0.weight",
        "scene_projection.weight",
        "object_projection.weight",
        "classifier.0.weight",
        "condition_head.weight",
        "fusion.phi.cls.0.weight",
    ]
    assert not any(torch.equal(one[name], other[name]) for name in names)
    shapes = [tuple(one[name].shape) for name in names]
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if one[a].shape == one[b].shape]
    assert pairs, shapes
    assert not any(torch.equal(one[a], one[b]) for a, b in pairs)


def test_a_plain_start_is_equation_six(folders: dict[str, Path]) -> None:
    values = settings(folders, "joint", coefficients=alpha(), sections={"fusion": {"start": "plain"}})
    fusion = build_stage(as_settings(values)).exports["net"].fusion
    assert not fusion.offset.any()
    assert (fusion.scale == 1).all()
    assert all(phi[-1].bias.any() for phi in fusion.phi.values())


def test_without_attributes_stage_1_trains_on_emotions_alone(folders: dict[str, Path]) -> None:
    values = {**settings(folders, "understanding"), "scenes": (), "objects": ()}
    torch.manual_seed(0)
    parts = build_stage(as_settings(values))
    raw = {**rows(), "scene": np.array([None] * 4, dtype=object)}
    raw["objects"] = np.empty(4, dtype=object)
    raw["objects"][:] = [np.array([], dtype=object)] * 4
    losses = parts.objective(parts.collate(raw, epoch=0, is_training=True).tensors)
    assert losses["scene_loss"] == losses["object_loss"] == 0
    assert losses["loss"].item() == pytest.approx(0.5 * losses["class_loss"].item())


def test_a_missing_diffusion_folder_is_named(folders: dict[str, Path]) -> None:
    values = settings(folders, "joint", sections={"diffusion": {"model": "/nowhere"}})
    with pytest.raises(ValueError, match=r"diffusion\.model '/nowhere'"):
        build_stage(as_settings(values))


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_a_trained_denoiser_is_taken_up_again(folders: dict[str, Path], tmp_path: Path, mode: str) -> None:
    values = settings(folders, "joint", sections={"diffusion": {"denoiser": mode, "lora_rank": 2}})
    fresh = load_trained_diffusion(as_settings(values)).denoiser
    trained = {name: torch.full_like(p, 0.25) for name, p in fresh.named_parameters() if p.requires_grad}
    assert trained
    save_file(trained, tmp_path / "denoiser.safetensors")
    again = as_settings(values | {"denoiser_weights": f"{tmp_path}/denoiser.safetensors"})
    loaded = dict(load_trained_diffusion(again).denoiser.named_parameters())
    assert all(bool((loaded[name] == 0.25).all()) for name in trained)


def test_denoiser_weights_of_another_kind_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    save_file({"conv_in.lora_A.other": torch.zeros(1)}, tmp_path / "denoiser.safetensors")
    values = settings(folders, "joint", denoiser_weights=f"{tmp_path}/denoiser.safetensors")
    with pytest.raises(ValueError, match=r"does not fit diffusion\.denoiser 'frozen': unexpected conv_in"):
        load_trained_diffusion(as_settings(values))


def test_joint_trains_on_sdxl(folders: dict[str, Path], tmp_path: Path) -> None:
    xl = write_xl_pipeline(tmp_path)
    sections = {"diffusion": {"model": str(xl)}}
    engine, parts, batch = make(settings(folders, "joint", coefficients=alpha(), sections=sections))
    net = parts.exports["net"]
    assert net.condition_head.in_features == sum(XL_WIDTHS)
    before = net.encoder.scene_queries.detach().clone()
    losses = [engine.step(batch).metrics["loss"] for _ in range(2)]
    assert all(np.isfinite(losses))
    assert not torch.equal(net.encoder.scene_queries, before)


@pytest.mark.parametrize("stage", ["understanding", "joint"])
def test_both_stages_train_in_fp16(folders: dict[str, Path], stage: str) -> None:
    losses = {}
    for precision in ("fp16", "fp32"):
        sections = {name: {"batch_size": 4, "precision": precision} for name in ("stage1", "stage2")}
        engine, _, batch = make(
            settings(folders, stage, coefficients=alpha(), sections=sections), zero_stage=1
        )
        losses[precision] = [engine.step(batch).metrics["loss"] for _ in range(3)]
    assert losses["fp16"] == pytest.approx(losses["fp32"], rel=2e-2)
    assert losses["fp16"] != losses["fp32"]


def test_text_widths_come_from_the_setting_or_the_folder(folders: dict[str, Path]) -> None:
    assert text_widths(DiffusionConfig(model="/nowhere", text_widths=(768, 1280))) == (768, 1280)
    assert text_widths(DiffusionConfig(model=str(folders["diffusion"]))) == (16,)
    with pytest.raises(ValueError, match=r"model_index\.json is missing"):
        text_widths(DiffusionConfig(model="/nowhere"))


def test_text_widths_that_the_model_does_not_have_are_named(folders: dict[str, Path]) -> None:
    wrong = {"diffusion": {"text_widths": (24,)}}
    with pytest.raises(ValueError, match=r"condition has width 24, .* text encoders of \(16,\)"):
        build_stage(as_settings(settings(folders, "joint", coefficients=alpha(), sections=wrong)))


def test_adapters_alone_get_gradients_and_survive_a_checkpoint(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    values = settings(
        folders, "joint", coefficients=alpha(), sections={"diffusion": {"denoiser": "lora", "lora_rank": 2}}
    )
    engine, parts, batch = make(values, zero_stage=1)
    denoiser = parts.exports["denoiser"]
    start = engine.state_dict(denoiser, is_trained_only=True)
    frozen = {n: p.detach().clone() for n, p in denoiser.named_parameters() if not p.requires_grad}
    for _ in range(2):  # B starts at zero, so A moves from the second step on
        engine.step(batch)
    trained = engine.state_dict(denoiser, is_trained_only=True)
    assert all("lora_" in name for name in trained)
    assert not any(torch.equal(start[name], trained[name]) for name in trained)
    assert all(torch.equal(denoiser.get_parameter(name), value) for name, value in frozen.items())

    engine.save(tmp_path)
    straight = engine.step(batch).metrics
    again, fresh, _ = make(values, zero_stage=1)
    again.load(tmp_path)
    loaded = again.state_dict(fresh.exports["denoiser"], is_trained_only=True)
    assert all(torch.equal(loaded[name], value) for name, value in trained.items())
    assert again.step(batch).metrics["diffusion_loss"] == straight["diffusion_loss"]


def test_stored_text_embeddings_replace_the_text_tower(folders: dict[str, Path], tmp_path: Path) -> None:
    clip = load_clip(str(folders["clip"]))
    table = embed_table(clip, [*OBJECTS, *SCENES])
    commit_shard(open_store(str(tmp_path)), "names/part-00000", table, plan_hash="p")
    plain = build_stage(as_settings(settings(folders, "understanding"))).exports["net"]
    stored = build_stage(
        as_settings(settings(folders, "understanding", name_embeddings=str(tmp_path)))
    ).exports["net"]
    for mine, theirs in ((stored.scenes, plain.scenes), (stored.objects, plain.objects)):
        assert mine.names == theirs.names
        torch.testing.assert_close(mine.embeddings, theirs.embeddings, atol=1e-6, rtol=0)
    short = {**settings(folders, "understanding", name_embeddings=str(tmp_path)), "scenes": ("moon",)}
    with pytest.raises(ValueError, match="no stored text embedding of 'moon'"):
        build_stage(as_settings(short))


def test_stored_embeddings_serve_mapped_queries_too(folders: dict[str, Path], tmp_path: Path) -> None:
    clip = load_clip(str(folders["clip"]))
    table = embed_table(clip, [*OBJECTS, *SCENES])
    commit_shard(open_store(str(tmp_path)), "names/part-00000", table, plan_hash="p")
    sections = {"fusion": {"match": "mapped"}, "diffusion": {"text_widths": (12,)}}
    first = build_stage(as_settings(settings(folders, "understanding"))).exports["net"]
    weights = keep(first.state_dict(), tmp_path / "net.safetensors")
    both = [
        load_net(as_settings(settings(folders, "joint", sections=sections, weights=weights, **more)))
        for more in ({}, {"name_embeddings": str(tmp_path)})
    ]
    assert both[0].mapped is not None
    assert both[1].mapped is not None
    assert both[0].mapped.names == (*OBJECTS, *SCENES)
    torch.testing.assert_close(both[1].mapped.embeddings, both[0].mapped.embeddings, atol=1e-6, rtol=0)
    assert not torch.allclose(both[0].mapped.embeddings[-len(SCENES) :], both[0].scenes.embeddings, atol=1e-3)


def test_training_shows_pictures_as_the_setting_says(folders: dict[str, Path]) -> None:
    values = settings(folders, "understanding", sections={"encoder": {"preprocess": "half"}})
    collate = build_stage(as_settings(values)).collate
    steps = [T.Resize(36), T.CenterCrop(32), T.ToTensor(), T.Normalize((0.5,) * 3, (0.5,) * 3)]
    expected = [T.Compose(steps)(Image.open(io.BytesIO(data))) for data in rows()["image"]]
    squares = collate(rows(), epoch=0, is_training=False).tensors["pixels"]
    pixels = collate.preprocess.from_bytes(squares)
    torch.testing.assert_close(pixels, torch.stack(expected), atol=1e-6, rtol=0)


def test_settings_of_speed_reach_the_stage(folders: dict[str, Path]) -> None:
    sections = {
        "diffusion": {"channels_last": True, "frozen_dtype": "bf16", "vae_slicing": True},
        "stage2": {"gradient_checkpointing": True},
    }
    engine, parts, batch = make(settings(folders, "joint", coefficients=alpha(), sections=sections))
    plain, _, _ = make(settings(folders, "joint", coefficients=alpha()))
    diffusion = parts.objective._diffusion[0]
    assert diffusion.denoiser.dtype == torch.bfloat16
    assert diffusion.vae.use_slicing
    assert diffusion.denoiser.is_gradient_checkpointing
    assert parts.exports["net"].encoder.visual.transformer.grad_checkpointing
    found, expected = engine.step(batch).metrics, plain.step(batch).metrics
    assert found["understanding_loss"] == pytest.approx(expected["understanding_loss"], rel=1e-5)
    assert found["diffusion_loss"] == pytest.approx(expected["diffusion_loss"], rel=0.05)


def test_a_cropped_target_is_the_encoders_own_crop(folders: dict[str, Path]) -> None:
    values = settings(folders, "joint", coefficients=alpha(), sections={"diffusion": {"target": "crop"}})
    collate = build_stage(as_settings(values)).collate
    first = collate(rows(), epoch=0, is_training=True).tensors["unit_pixels"]
    assert torch.equal(first, collate(rows(), epoch=0, is_training=True).tensors["unit_pixels"])
    assert not torch.equal(first, collate(rows(), epoch=1, is_training=True).tensors["unit_pixels"])
    whole = collate(rows(), epoch=0, is_training=False).tensors["unit_pixels"]
    assert not torch.equal(first, whole)
    # with one size for both, the encoder and the VAE see the same crop
    preprocess = replace(collate.preprocess, mean=(0.5,) * 3, std=(0.5,) * 3)
    same = replace(collate, unit_size_px=preprocess.size_px, preprocess=preprocess)
    tensors = same(rows(), epoch=0, is_training=True).tensors
    torch.testing.assert_close(tensors["unit_pixels"], tensors["pixels"], atol=1e-6, rtol=0)


def test_without_names_the_stored_embeddings_are_not_asked(folders: dict[str, Path], tmp_path: Path) -> None:
    values = settings(folders, "understanding", name_embeddings=str(tmp_path / "nowhere"))
    net = build_stage(as_settings({**values, "scenes": (), "objects": ()})).exports["net"]
    assert net.scene_projection.weight.shape[0] == net.encoder.visual.output_dim


@pytest.mark.parametrize("stage", ["understanding", "joint"])
def test_both_stages_train_on_two_classes(folders: dict[str, Path], stage: str) -> None:
    """Emotion names are then those of the two classes, and so are heads and coefficients."""
    data = {"kind": "folders", "root": "/set", "labels": "sentiment"}
    two = {kind: {name: row[:2] for name, row in rows_.items()} for kind, rows_ in alpha().items()}
    values = settings(folders, stage, sections={"data": data}, coefficients=two if stage == "joint" else {})
    torch.manual_seed(0)
    parts = build_stage(as_settings(values))
    named = rows() | {"emotion": np.array(["positive", "negative"] * 2, dtype=object)}
    batch = parts.collate(named, epoch=0, is_training=False).tensors
    assert batch["emotion"].tolist() == [0, 1, 0, 1]
    parts.objective(batch)["loss"].backward()
    net = parts.exports["net"]
    assert net.classifier[-1].out_features == 2
    assert stage == "understanding" or net.condition_head.out_features == 2
    assert net.classifier[-1].weight.grad.abs().max() > 0
    assert net.scenes.coefficients.shape == (len(SCENES), 2)
