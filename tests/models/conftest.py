import pytest

from tests.models.tiny import write_clip, write_pipeline, write_xl_pipeline
from uniemo_ray.models.clip import ClipParts
from uniemo_ray.models.diffusion import DiffusionParts, load_diffusion


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    write_clip(folder)
    return folder


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> ClipParts:
    """Do not change it."""
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory):
    return write_pipeline(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(scope="session")
def diffusion(pipeline_folder) -> DiffusionParts:
    """Do not change it."""
    return load_diffusion(str(pipeline_folder))


@pytest.fixture(scope="session")
def xl_folder(tmp_path_factory):
    return write_xl_pipeline(tmp_path_factory.mktemp("xl"))


@pytest.fixture(scope="session")
def xl(xl_folder) -> DiffusionParts:
    """Do not change it."""
    return load_diffusion(str(xl_folder))
