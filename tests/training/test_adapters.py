"""LoRA on the denoiser of both architectures: trained, into the next round, and into the model folder."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models.tiny import write_clip, write_pipeline, write_xl_pipeline
from tests.training.test_stage import alpha, as_settings, make, settings
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.feedback.schema import COEFFICIENTS
from uniemo_ray.inference.model_folder import ModelParts, load_model_folder, save_model_folder
from uniemo_ray.models.clip import load_clip
from uniemo_ray.models.diffusion import DiffusionParts
from uniemo_ray.statistics.gaussian_space import GaussianSpace
from uniemo_ray.training.stage import load_net, load_trained_diffusion

WRITERS = {"sd": write_pipeline, "sdxl": write_xl_pipeline}


@pytest.fixture(scope="module", params=WRITERS)
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    write_clip(folder / "clip")
    return {"clip": folder / "clip", "diffusion": WRITERS[request.param](folder / "diffusion")}


@pytest.fixture(scope="module")
def values(folders: dict[str, Path]) -> dict[str, Any]:
    """Stage 2 with adapters that learn fast enough to be seen."""
    lora = {"denoiser": "lora", "lora_rank": 2}
    sections = {"diffusion": lora, "stage2": {"warmup_steps": 0, "rates": {"denoiser": 0.05}}}
    return settings(folders, "joint", coefficients=alpha(), sections=sections)


@pytest.fixture(scope="module")
def next_round(values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of the stage that follows a few steps of `values`, with their weights."""
    folder = tmp_path_factory.mktemp("round")
    engine, parts, batch = make(values, zero_stage=1)
    for _ in range(3):  # one half of each adapter starts at zero, so the other moves from the second step on
        engine.step(batch)
    adapters = engine.state_dict(parts.exports["denoiser"], is_trained_only=True)
    assert all("lora_" in name for name in adapters)
    save_file(adapters, folder / "denoiser.safetensors")
    save_file(engine.state_dict(parts.exports["net"]), folder / "net.safetensors")
    return values | {
        "weights": f"{folder}/net.safetensors",
        "denoiser_weights": f"{folder}/denoiser.safetensors",
    }


def load(values: dict[str, Any]) -> DiffusionParts:
    return load_trained_diffusion(as_settings(values))


@torch.no_grad()
def denoise(diffusion: DiffusionParts) -> torch.Tensor:
    """A loss that every layer of the denoiser takes part in."""
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    states = diffusion.text_states(["lion", "toy"])
    return diffusion.denoise_loss(latents, states, torch.Generator().manual_seed(2))


def test_adapters_start_as_identity_and_reach_every_attention(values: dict[str, Any]) -> None:
    fresh = load(values)
    plain = load({**values, "config": {**values["config"], "diffusion": {"model": str(fresh.folder.path)}}})
    torch.testing.assert_close(denoise(fresh), denoise(plain))
    attentions = [name for name, m in plain.denoiser.named_modules() if type(m).__name__ == "Attention"]
    trained = [name for name, p in fresh.denoiser.named_parameters() if p.requires_grad]
    assert attentions
    for name in attentions:
        for layer in ("to_q", "to_k", "to_v", "to_out.0"):
            found = [key for key in trained if key.startswith(f"{name}.{layer}.lora_")]
            assert len(found) == 2


def test_the_next_round_starts_from_them_and_trains_on(
    values: dict[str, Any], next_round: dict[str, Any]
) -> None:
    engine, parts, batch = make(next_round, zero_stage=1)
    denoiser = parts.exports["denoiser"]
    before = engine.state_dict(denoiser, is_trained_only=True)
    trained = load_file(next_round["denoiser_weights"])
    assert before.keys() == trained.keys()
    assert all(torch.equal(before[name], trained[name]) for name in trained)
    assert (denoise(load(next_round)) - denoise(load(values))).abs().max() > 1e-3
    for _ in range(2):
        engine.step(batch)
    after = engine.state_dict(denoiser, is_trained_only=True)
    assert not any(torch.equal(before[name], after[name]) for name in before)


def test_the_model_folder_holds_them_merged(next_round: dict[str, Any], tmp_path: Path) -> None:
    stage, trained = as_settings(next_round), load(next_round)
    clip, net = load_clip(stage.config.encoder.clip), load_net(as_settings(next_round))
    nothing = {member: np.zeros((8, net.encoder.width)) for member in net.fusion.members}
    parts = ModelParts(
        config=stage.config,
        clip_config=clip.config,
        merges=clip.merges.read_bytes() if clip.merges else None,
        net=net,
        diffusion=trained,
        space=GaussianSpace(nothing, nothing, np.zeros(len(EMOTIONS), np.int64)),
        coefficients=pa.Table.from_pylist([], schema=COEFFICIENTS),
    )
    save_model_folder(parts, tmp_path / "model")
    loaded = load_model_folder(tmp_path / "model").diffusion
    assert loaded is not None
    assert loaded.is_xl == trained.is_xl
    assert not getattr(loaded.denoiser, "peft_config", None)
    torch.testing.assert_close(denoise(loaded), denoise(trained), atol=1e-4, rtol=1e-4)
