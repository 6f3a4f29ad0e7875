"""Fixtures: the tiny random model folder of the inference tests, and an application over a small backend."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.inference.conftest import clip, heads, model_folder, parts, pipeline_folder
from tests.service.fake import Brightness, client_of, make_fake
from uniemo_ray.service.generations import GenerationStore
from uniemo_ray.store.local import LocalStore

__all__ = ["clip", "heads", "model_folder", "parts", "pipeline_folder"]


@pytest.fixture
def generation_store(tmp_path: Path) -> GenerationStore:
    """A generation store in a temporary folder."""
    return GenerationStore(LocalStore(tmp_path / "generations"), ttl_s=60)


@pytest.fixture
def served(generation_store: GenerationStore) -> Iterator[tuple[TestClient, Brightness]]:
    """A client and the backend behind it, in one event loop."""
    app, backend = make_fake(generation_store)
    with client_of(app) as client:
        yield client, backend


@pytest.fixture
def client(served: tuple[TestClient, Brightness]) -> TestClient:
    """A client of an application over the small backend."""
    return served[0]
