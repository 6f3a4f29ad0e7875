"""SDXL's repository from the stand-in hub, whole and in half precision."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.fetch.hub_server import running_hub
from tests.fetch.layout import files_below
from tests.models.tiny import XL_WIDTHS, write_xl_pipeline
from uniemo_ray.fetch.fetch import fetch
from uniemo_ray.fetch.hub import Hub
from uniemo_ray.fetch.sources import SDXL
from uniemo_ray.models.diffusion import load_diffusion
from uniemo_ray.store.filesystem import open_store

PARTS = ("denoiser", "vae", "text_encoder", "text_encoder_2")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a half-precision file beside every weight file."""
    folder = write_xl_pipeline(tmp_path_factory.mktemp("xl"))
    for path in [*folder.rglob("*.safetensors")]:
        half = {name: value.half() for name, value in load_file(path).items()}
        save_file(half, path.with_suffix(".fp16.safetensors"))
    return folder


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_what_is_fetched_is_what_the_hub_has(model: Path, tmp_path: Path, variant: str | None) -> None:
    with running_hub() as server:
        server.add(SDXL.repository, SDXL.revision, files_below(model))
        hub, store = Hub(server.endpoint), open_store(str(tmp_path / "to"))
        fetch((SDXL,), store, hub=hub, scratch=tmp_path / "scratch", variant=variant)
    served = [name for name, _ in server.served if name.endswith(".safetensors")]
    assert len(served) == 4
    assert all((".fp16." in name) == (variant is not None) for name in served)
    loaded, original = load_diffusion(str(tmp_path / "to" / "diffusion")), load_diffusion(str(model))
    assert loaded.text_widths == XL_WIDTHS
    for part in PARTS:
        mine, theirs = getattr(loaded, part).state_dict(), getattr(original, part).state_dict()
        assert mine.keys() == theirs.keys()
        for name, value in theirs.items():
            assert torch.equal(mine[name], value.half().float() if variant else value), name
    for tokenizer in ("tokenizer", "tokenizer_2"):
        said = [getattr(parts, tokenizer)("a lion").input_ids for parts in (loaded, original)]
        assert said[0] == said[1]
