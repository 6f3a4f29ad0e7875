"""The model folder: what is saved comes back, and what is wrong is named."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from uniemo_ray.config import DiffusionConfig
from uniemo_ray.emotions import EKMAN, MIKELS
from uniemo_ray.feedback.schema import coefficients_schema
from uniemo_ray.inference.checksums import CHECKSUMS, CONFIG, TRAINING, verify, write_checksums
from uniemo_ray.inference.model_folder import ModelParts, load_model_folder, load_painter, save_model_folder
from uniemo_ray.inference.model_source import describe_model
from uniemo_ray.inference.painter import Painter
from uniemo_ray.inference.requests import Request, SamplingSettings, Share
from uniemo_ray.inference.uniemo import UniEmo
from uniemo_ray.models.build import build_net
from uniemo_ray.models.clip import ClipParts
from uniemo_ray.models.diffusion import load_diffusion, unfreeze_denoiser
from uniemo_ray.statistics.gaussian_space import GaussianSpace


@pytest.fixture
def copy(model_folder: Path, tmp_path: Path) -> Path:
    """A model folder to damage."""
    return Path(shutil.copytree(model_folder, tmp_path / "copy"))


def test_everything_comes_back(model_folder: Path, parts: ModelParts) -> None:
    loaded = load_model_folder(model_folder)
    mine, theirs = parts.net.state_dict(), loaded.net.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert not loaded.net.training
    assert loaded.net.scenes.names == ("beach", "forest", "street")
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded.net.understand(pixels).logits, parts.net.understand(pixels).logits)
    assert loaded.coefficients.equals(parts.coefficients)
    assert all((loaded.space.mean[m] == parts.space.mean[m]).all() for m in parts.space.mean)
    assert loaded.scorers is not None
    assert loaded.scorers.names == parts.scorers.names
    assert (loaded.card, loaded.merges, loaded.clip_config) == (parts.card, parts.merges, parts.clip_config)
    assert loaded.config.diffusion == parts.config.diffusion
    assert loaded.config.encoder == parts.config.encoder


def test_only_open_formats_are_written(model_folder: Path) -> None:
    kinds = {path.suffix for path in model_folder.rglob("*") if path.is_file()}
    assert kinds <= {".json", ".safetensors", ".parquet", ".md", ".txt", ".gz"}
    listed = json.loads((model_folder / CHECKSUMS).read_text())
    assert set(listed) == {
        p.relative_to(model_folder).as_posix()
        for p in model_folder.rglob("*")
        if p.is_file() and p.name != CHECKSUMS
    }


def test_the_diffusion_folder_is_diffusers_own(model_folder: Path) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(model_folder / "diffusion", local_files_only=True)
    assert pipe.unet.config.cross_attention_dim == 16


def test_saving_again_gives_the_same_fingerprint(model_folder: Path, tmp_path: Path) -> None:
    loaded = load_model_folder(model_folder)
    assert save_model_folder(loaded, tmp_path / "again") == loaded.fingerprint != ""
    other_card = replace(loaded, card="# Better words")
    assert save_model_folder(other_card, tmp_path / "card") == loaded.fingerprint
    changed = load_model_folder(model_folder)
    with torch.no_grad():
        changed.net.fusion.offset += 1
    assert save_model_folder(changed, tmp_path / "changed") != loaded.fingerprint


@pytest.mark.parametrize(
    ("section", "values", "is_same"),
    [
        ("generation", {"per_emotion": 7, "actors": 5, "retries": 1}, True),
        ("losses", {"margin": 0.7, "class_weight": 0.1}, True),
        ("encoder", {"tower": "frozen", "clip": "/elsewhere"}, True),
        ("stage1", {"epochs": 3}, True),
        ("generation", {"threads": 2}, False),
        ("diffusion", {"steps": 17}, False),
        ("fusion", {"use_coefficients": False}, False),
    ],
)
def test_the_fingerprint_knows_what_decides_outputs_and_nothing_else(
    parts: ModelParts, tmp_path: Path, section: str, values: dict, is_same: bool
) -> None:
    changed = getattr(parts.config, section).model_copy(update=values)
    config = parts.config.model_copy(update={section: changed})
    first, second = tmp_path / "first", tmp_path / "second"
    is_equal = save_model_folder(parts, first) == save_model_folder(replace(parts, config=config), second)
    assert is_equal == is_same
    if section in ("losses", "encoder", "fusion"):  # what it was trained with is kept all the same
        assert getattr(load_model_folder(second, with_diffusion=False).config, section) == changed


def test_a_folder_from_before_training_json_is_read(model_folder: Path, copy: Path) -> None:
    trained = json.loads((copy / TRAINING).read_text())
    header = json.loads((copy / CONFIG).read_text())
    header["config"] = {**trained, **header["config"], "generation": {"per_emotion": 9, "threads": 2}}
    (copy / CONFIG).write_text(json.dumps(header))
    (copy / TRAINING).unlink()
    write_checksums(copy)
    config = load_model_folder(copy, with_diffusion=False).config
    assert (config.generation.per_emotion, config.generation.threads) == (9, 2)


def test_a_diffusion_model_is_saved_again_without_loading_it(model_folder: Path, tmp_path: Path) -> None:
    loaded = load_model_folder(model_folder, with_diffusion=False)
    assert loaded.diffusion is None
    assert save_model_folder(loaded, tmp_path / "again") == loaded.fingerprint == verify(model_folder)
    assert load_model_folder(tmp_path / "again").diffusion is not None


def test_an_older_model_is_replaced_and_nothing_is_left_behind(parts: ModelParts, copy: Path) -> None:
    (copy / "stray.txt").write_text("old")
    save_model_folder(replace(parts, card="new"), copy)
    assert load_model_folder(copy).card == "new"
    assert not (copy / "stray.txt").exists()
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_a_loaded_model_can_be_saved_onto_itself(copy: Path) -> None:
    before = verify(copy)
    assert save_model_folder(load_model_folder(copy), copy) == before == verify(copy)


def test_something_else_is_not_overwritten(parts: ModelParts, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="holds something that is no model folder: choose an empty folder"):
        save_model_folder(parts, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "emotion_space.safetensors",
        "clip/open_clip_config.json",
        "diffusion/unet/config.json",
    ],
)
def test_damage_and_absence_are_named(copy: Path, name: str) -> None:
    path = copy / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"{name} is damaged or was changed") as damage:
        load_model_folder(copy)
    path.unlink()
    with pytest.raises(ValueError, match=f"{name} is missing from the model folder") as absence:
        load_model_folder(copy)
    assert all("\n" not in str(error.value) for error in (damage, absence))


def test_another_version_is_named_before_anything_is_hashed(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"version": 99}))
    with pytest.raises(ValueError, match=r"config\.json has format version 99, this program reads version 1"):
        load_model_folder(copy)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "config.json is no valid JSON"),
        ("[]", "must hold a JSON object"),
        ('{"format": "x"}', "is not of a uniemo"),
    ],
)
def test_a_wrong_config_is_named(copy: Path, text: str, words: str) -> None:
    (copy / "config.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        load_model_folder(copy)


def test_unknown_settings_and_misfit_weights_are_named(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["config"]["encoder"]["query_length"] = 5
    (copy / "config.json").write_text(json.dumps(config))
    write_checksums(copy)
    with pytest.raises(ValueError, match=r"model\.safetensors does not fit config\.json"):
        load_model_folder(copy)
    config["config"]["encoder"] = {"querylength": 5}
    (copy / "config.json").write_text(json.dumps(config))
    write_checksums(copy)
    with pytest.raises(ValueError, match="does not hold a model's settings"):
        load_model_folder(copy)


def test_missing_and_foreign_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere does not exist: give a folder written by save_pretrained"):
        load_model_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"is no model folder: it has no config\.json"):
        load_model_folder(tmp_path)


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_a_trained_denoiser_is_saved_as_trained(
    parts: ModelParts, pipeline_folder: Path, tmp_path: Path, mode: str
) -> None:
    diffusion = load_diffusion(str(pipeline_folder))
    trained = unfreeze_denoiser(diffusion, mode=mode, lora_rank=2)
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(0.05)
    config = parts.config.model_copy(update={"diffusion": DiffusionConfig(denoiser=mode)})
    save_model_folder(replace(parts, diffusion=diffusion, config=config), tmp_path / "model")
    loaded = load_model_folder(tmp_path / "model").diffusion
    x, states = torch.randn(1, 4, 8, 8), torch.randn(1, 5, 16)
    with torch.no_grad():
        mine, theirs, base = (
            p.denoiser(x, 500, encoder_hidden_states=states).sample
            for p in (diffusion, loaded, parts.diffusion)
        )
    torch.testing.assert_close(theirs, mine, atol=1e-4, rtol=1e-4)
    assert (theirs - base).abs().max() > 1e-2


def test_a_painter_comes_with_the_fingerprint(model_folder: Path) -> None:
    painter, fingerprint = load_painter(model_folder)
    assert fingerprint == verify(model_folder)
    assert painter.net is not None
    assert len(fingerprint) == 16


def paint(parts: ModelParts) -> np.ndarray:
    """Two images of awe, (2, 32, 32, 3)."""
    painter = Painter(parts.diffusion, net=parts.net, space=parts.space)
    requests = [Request(seed=seed, prompt="<emotion>", emotions=(Share("awe", 1.0),)) for seed in (1, 2)]
    settings = SamplingSettings("unipc", steps=3, guidance=4.0, width=32, height=32, micro_batch=2)
    return np.stack([painting.pixels for painting in painter.paint(requests, settings, threads=1)])


def test_trained_adapters_paint_the_same_after_saving(
    parts: ModelParts, pipeline_folder: Path, tmp_path: Path
) -> None:
    diffusion = load_diffusion(str(pipeline_folder))
    trained = unfreeze_denoiser(diffusion, mode="lora", lora_rank=2)
    optimizer = torch.optim.Adam(trained, lr=0.05)
    states = diffusion.text_states(["lion", "toy"])
    for step in range(4):
        generator = torch.Generator().manual_seed(step)
        loss = diffusion.denoise_loss(torch.randn(2, 4, 8, 8, generator=generator), states, generator)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    with_gradient = {n for n, p in diffusion.denoiser.named_parameters() if p.grad is not None}
    assert with_gradient
    assert all("lora_" in name for name in with_gradient)

    config = parts.config.model_copy(
        update={"diffusion": parts.config.diffusion.model_copy(update={"denoiser": "lora"})}
    )
    mine = replace(parts, diffusion=diffusion, config=config)
    save_model_folder(mine, tmp_path / "once")
    once = load_model_folder(tmp_path / "once")
    save_model_folder(once, tmp_path / "twice")
    painted = paint(once)
    assert (painted == paint(load_model_folder(tmp_path / "twice"))).all()
    assert not getattr(once.diffusion.denoiser, "peft_config", None)  # merged into the weights
    # adapters beside the weights round otherwise than merged ones: one grey level at most
    assert np.abs(painted.astype(int) - paint(mine)).max() <= 1
    assert np.abs(painted.astype(int) - paint(parts)).max() > 5


def test_settings_of_speed_are_applied_to_a_loaded_model(parts: ModelParts, tmp_path: Path) -> None:
    fast = parts.config.diffusion.model_copy(
        update={"frozen_dtype": "bf16", "channels_last": True, "vae_slicing": True}
    )
    save_model_folder(
        replace(parts, config=parts.config.model_copy(update={"diffusion": fast})), tmp_path / "model"
    )
    loaded = load_model_folder(tmp_path / "model")
    assert loaded.diffusion.denoiser.dtype == torch.bfloat16
    assert loaded.diffusion.vae.use_slicing
    assert np.abs(paint(loaded).astype(int) - paint(parts)).mean() < 8
    # what is saved again is the fp32 original
    save_model_folder(loaded, tmp_path / "again")
    weights = load_file(tmp_path / "again" / "diffusion" / "unet" / "diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32}


@pytest.fixture
def six(parts: ModelParts, clip: ClipParts) -> ModelParts:
    """A model of six emotions that makes no images."""
    net = build_net(
        parts.config, clip=clip, scene_names=(), object_names=(), text_width=16, classes=len(EKMAN.labels)
    ).eval()
    return replace(
        parts,
        net=net,
        diffusion=None,
        labels=EKMAN,
        space=GaussianSpace.empty(net.fusion.members, net.encoder.width, EKMAN.labels),
        coefficients=coefficients_schema(EKMAN.labels).empty_table(),
        scorers=None,
    )


def test_a_model_of_other_emotions_comes_back_with_them(six: ModelParts, tmp_path: Path) -> None:
    fingerprint = save_model_folder(six, tmp_path / "six")
    assert describe_model(tmp_path / "six") == (EKMAN, fingerprint)
    loaded = load_model_folder(tmp_path / "six")
    assert (loaded.labels, loaded.space.labels) == (EKMAN, EKMAN.labels)
    assert all(
        torch.equal(value, loaded.net.state_dict()[key]) for key, value in six.net.state_dict().items()
    )
    seen = UniEmo(loaded).understand(np.zeros((32, 32, 3), np.uint8))[0]
    assert tuple(seen.emotions) == EKMAN.labels
    negative = sum(seen.emotions[name] for name in EKMAN.negative)
    assert seen.valence == ("positive" if seen.emotions["joy"] >= negative else "negative")


def test_the_shipped_model_and_older_folders_have_the_eight_emotions(model_folder: Path) -> None:
    assert describe_model("tiny")[0] == describe_model(model_folder)[0] == MIKELS
    assert load_model_folder("tiny", with_diffusion=False).diffusion is None


def test_emotions_of_no_label_space_are_named(copy: Path) -> None:
    header = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**header, "emotions": ["joy"]}))
    write_checksums(copy)
    with pytest.raises(ValueError, match=r"config.json: no label space has the labels joy: expected"):
        load_model_folder(copy)
