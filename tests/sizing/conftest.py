"""The tiny base models of the training tests, and torch as it was."""

import pytest
import torch

from tests.training.conftest import folders

__all__ = ["folders"]


@pytest.fixture(autouse=True)
def torchs_own_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed's ZeRO 3 replaces it in its process for good, and other activations are kept then."""
    monkeypatch.setattr(torch.nn.functional, "linear", torch._C._nn.linear)
