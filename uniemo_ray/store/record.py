"""The commit record of a finished step, and the versions that made it."""

import platform
from dataclasses import MISSING, asdict, dataclass, fields
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from uniemo_ray import __version__

_PACKAGES = ("torch", "ray", "deepspeed", "diffusers", "open_clip_torch", "transformers", "pyarrow", "numpy")


@dataclass(frozen=True)
class StepRecord:
    """What a finished step was made of and what it gave. All values are plain JSON."""

    name: str
    fingerprint: str
    """sha256 of name, settings, inputs' fingerprints and code version."""
    settings: Any
    code_version: int
    inputs: dict[str, str]
    """Name of each input step -> its fingerprint."""
    outputs: dict[str, Any]
    metrics: dict[str, Any]
    seconds: float
    """Time of the attempt that finished."""
    finished_at: str
    """ISO 8601 with time zone."""
    versions: dict[str, str]
    status: str
    has_artefacts: bool
    """Whether its artefact folder held files at the commit; if they are gone later, the step runs again."""
    lineage: str = ""
    """The fingerprint without the settings that may grow. It names the artefact folder, which runs of
    all sizes share."""
    shards: int = 0
    """Committed shards in its artefact folder at the commit."""
    epoch: int = 0
    """Number of the lease under which it was committed."""

    @property
    def artefacts(self) -> str:
        """Its artefact folder, as a key in the run's store."""
        return artefact_folder(self.name, self.lineage or self.fingerprint)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> "StepRecord":
        """From the plain values; keys that a later release has added are ignored.

        Raises:
            ValueError: a record without one of the fields.
        """
        if not isinstance(values, dict):
            raise ValueError("no commit record")
        missing = [each.name for each in fields(cls) if each.name not in values and each.default is MISSING]
        if missing:
            raise ValueError(f"commit record lacks {', '.join(missing)}")
        return cls(**{each.name: values[each.name] for each in fields(cls) if each.name in values})


def artefact_folder(name: str, lineage: str) -> str:
    """Where a step of this lineage keeps its files, as a key in the run's store."""
    return f"artefacts/{name}-{lineage[:12]}"


def library_versions() -> dict[str, str]:
    """Versions of Python, this package and the installed libraries that decide results."""
    found = {"python": platform.python_version(), "uniemo_ray": __version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # a light installation, such as a client that only submits
    return found


def now() -> str:
    """ISO 8601 in local time with its zone, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")
