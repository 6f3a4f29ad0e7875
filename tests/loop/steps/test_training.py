"""What each training of the loop goes on from."""

from pathlib import Path

import pytest

from uniemo_ray.loop.steps.training import training_settings
from uniemo_ray.settings_file import load_config
from uniemo_ray.store.base import Store
from uniemo_ray.store.filesystem import open_store


class Context:
    """Folders of a run's steps."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def artefacts_of(self, name: str) -> Store:
        return open_store(str(self.root / name))


@pytest.mark.parametrize("denoiser", ["frozen", "lora"])
def test_only_the_first_stage_two_has_a_fresh_fusion(tmp_path: Path, denoiser: str) -> None:
    settings = [f"diffusion.denoiser={denoiser}", "fusion.use_coefficients=false"]
    config, context = load_config(None, settings), Context(tmp_path)
    context.artefacts_of("ingest").write_json("names.json", {"scene": ["sky"], "object": []})
    found = {
        (stage, round_): training_settings(context, config, stage=stage, round_=round_)
        for stage in ("understanding", "joint")
        for round_ in (1, 2)
    }
    starts = {key: (each.weights, each.fusion_weights, each.denoiser_weights) for key, each in found.items()}
    assert starts["understanding", 1] == (None, None, None)
    assert starts["understanding", 2] == (f"{tmp_path}/joint-1/net.safetensors", None, None)
    assert starts["joint", 1] == (f"{tmp_path}/understanding-1/net.safetensors", None, None)
    fusion = f"{tmp_path}/joint-1/net.safetensors"
    adapters = f"{tmp_path}/joint-1/denoiser.safetensors" if denoiser == "lora" else None
    assert starts["joint", 2] == (f"{tmp_path}/understanding-2/net.safetensors", fusion, adapters)
    assert {each.scenes for each in found.values()} == {("sky",)}
