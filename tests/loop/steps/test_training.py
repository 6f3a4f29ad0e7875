"""What each training of the loop goes on from."""

from pathlib import Path

import pytest

from uniemo_ray.loop.steps.training import starting_point
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
    config, context = load_config(None, [f"diffusion.denoiser={denoiser}"]), Context(tmp_path)
    found = {
        (stage, round_): starting_point(context, config, stage=stage, round_=round_)
        for stage in ("understanding", "joint")
        for round_ in (1, 2)
    }
    assert found["understanding", 1] == {}
    assert found["understanding", 2] == {"weights": f"{tmp_path}/joint-1/net.safetensors"}
    first = {"weights": f"{tmp_path}/understanding-1/net.safetensors", "is_fusion_fresh": True}
    assert found["joint", 1] == first
    adapters = {"denoiser_weights": f"{tmp_path}/joint-1/denoiser.safetensors"} if denoiser == "lora" else {}
    second = {"weights": f"{tmp_path}/understanding-2/net.safetensors", "is_fusion_fresh": False}
    assert found["joint", 2] == second | adapters
