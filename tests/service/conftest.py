"""The tiny random model folder of the inference tests, and an application over a fake backend."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.inference.conftest import clip, heads, model_folder, parts, pipeline_folder
from tests.service.fake import Brightness, client_of, make_fake
from uniemo_ray.service.generations import JobBoard
from uniemo_ray.store.local import LocalStore

__all__ = ["clip", "heads", "model_folder", "parts", "pipeline_folder"]


@pytest.fixture
def board(tmp_path: Path) -> JobBoard:
    """Generations in a temporary folder."""
    return JobBoard(LocalStore(tmp_path / "generations"), ttl_s=60)


@pytest.fixture
def served(board: JobBoard) -> Iterator[tuple[TestClient, Brightness]]:
    """A client and the fake behind it, in one event loop."""
    app, backend = make_fake(board)
    with client_of(app) as client:
        yield client, backend


@pytest.fixture
def client(served: tuple[TestClient, Brightness]) -> TestClient:
    """The client alone."""
    return served[0]
