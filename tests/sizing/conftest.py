"""The tiny base models of the training tests."""

from tests.training.conftest import folders

__all__ = ["folders"]
