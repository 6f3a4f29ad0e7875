"""Small random diffusion models, in the files of real ones."""

from pathlib import Path

import pytest

from tests.models.tiny import write_pipeline, write_xl_pipeline
from uniemo_ray.models.diffusion import DiffusionParts, load_diffusion


@pytest.fixture(scope="session")
def sd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="session")
def xl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_xl_pipeline(tmp_path_factory.mktemp("xl"))


@pytest.fixture
def diffusion(sd_folder: Path) -> DiffusionParts:
    """Fresh, so that a test may train it."""
    return load_diffusion(str(sd_folder))


@pytest.fixture
def xl(xl_folder: Path) -> DiffusionParts:
    return load_diffusion(str(xl_folder))
