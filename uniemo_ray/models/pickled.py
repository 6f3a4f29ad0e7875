"""Files of `torch.save`; nothing in a pickle is executed."""

import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from uniemo_ray.foreign_files import stand_in_at

Allowed = type[Any] | Callable[..., Any] | tuple[Any, str]
"""A type or function, or one with the name that files give it."""
COMPILED = "_orig_mod."
"""What torch.compile puts into the names of a module's tensors."""
_NAMED = re.compile(r"GLOBAL (\S+)|[Uu]nsupported class:? (\S+)")
_REASON = re.compile(r"WeightsUnpickler error: (.*)")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def read_pickled(path: Path, *, allowed: Sequence[Allowed] = ()) -> Any:
    """Content of a file that holds only tensors, plain values and what is `allowed`.

    Args:
        path: the file.
        allowed: harmless types that may be in it beside those.

    Raises:
        RuntimeError, EOFError, OSError, LookupError: as torch finds it damaged.
        UnpicklingError: one line, naming the first type that is not allowed, or what lies there instead.
    """
    if found := stand_in_at(path):
        raise UnpicklingError(f"it is {found}")
    is_zip = zipfile.is_zipfile(path)  # before PyTorch 1.6 it was none, and cannot be mapped
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except UnpicklingError as error:
        raise UnpicklingError(_explain(str(error))) from None


def _explain(message: str) -> str:
    """Torch's page of advice as one line: advice to trust the file would be wrong here."""
    if found := _NAMED.search(message):
        return f"it names {found[1] or found[2]}, which is not allowed"
    reason = _REASON.search(message)
    return " ".join(_COLOURS.sub("", reason[1] if reason else message).split())
