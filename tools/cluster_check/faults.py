"""What a check finds, and what it cannot do here."""

import importlib
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

Document = dict[str, Any]
"""One YAML or JSON document."""


class Fault(NamedTuple):
    """One fault, shown as one line."""

    file: str
    where: str
    what: str

    def __str__(self) -> str:
        """File, place and fault in one line."""
        return " ".join(": ".join(part for part in self if part).split())


class NotCheckedError(RuntimeError):
    """A tool, a library or the folder of schemas is missing; the message says what to do."""


def library(name: str) -> ModuleType:
    """An optional library.

    Raises:
        NotCheckedError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise NotCheckedError(f"{name} is not installed: pip install -e '.[cluster]'") from None


def tool(name: str, package: str) -> str:
    """Path of a program: of this environment, else of the system.

    Raises:
        NotCheckedError: there is none.
    """
    own = Path(sys.executable).parent / name
    found = str(own) if own.is_file() else shutil.which(name)
    if found is None:
        raise NotCheckedError(f"{name} is not installed: {package}")
    return found
