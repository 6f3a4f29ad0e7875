"""The tiny random model folder of the inference tests, and a log that a command may set up."""

import logging
from collections.abc import Iterator

import pytest

from tests.inference.conftest import clip, heads, model_folder, parts, pipeline_folder

__all__ = ["clip", "heads", "model_folder", "parts", "pipeline_folder"]


@pytest.fixture
def own_log() -> Iterator[None]:
    """Takes the handlers away again that a command adds to the root logger."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
