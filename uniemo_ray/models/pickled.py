"""Files of `torch.save`; nothing in a pickle is executed."""

import zipfile
from pathlib import Path
from typing import Any

import torch


def read_pickled(path: Path) -> Any:
    """Content of a file that holds only tensors and plain values.

    Raises:
        RuntimeError, EOFError, OSError, LookupError, UnpicklingError: as torch finds it damaged, or holding
            more than that.
    """
    is_zip = zipfile.is_zipfile(path)  # before PyTorch 1.6 it was none, and cannot be mapped
    return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
