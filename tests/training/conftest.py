"""Tiny base models for the stages of training."""

from pathlib import Path

import pytest

from tests.models.tiny import write_clip, write_pipeline


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("stage")
    write_clip(folder / "clip")
    write_pipeline(folder / "diffusion")
    return {"clip": folder / "clip", "diffusion": folder / "diffusion"}
