"""Hashes that are the same in every process: of whatever decides a step's result, and of files."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from pydantic import BaseModel

from uniemo_ray.settings_view import SettingsView


def fingerprint(value: Any) -> str:
    """sha256 (hex) of a value's canonical JSON: neither the order of keys counts nor whether 20 is 20.0.

    Raises:
        ValueError: something in it that has no stable JSON form, by its path.
    """
    plain = _whole_numbers(canonical(value))
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 (hex) of a local file, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical(value: Any, path: str = "settings") -> Any:
    """The plain JSON value of settings: models become mappings, tuples lists.

    Raises:
        ValueError: something that has no stable JSON form, by its path.
    """
    if isinstance(value, BaseModel | SettingsView):
        return canonical(value.model_dump(mode="json"), path)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{path}: expected text as a key, got {key!r}")
        return {key: canonical(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [canonical(item, f"{path}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{path}: expected a finite number, got {value}")
    if isinstance(value, PurePath):
        return str(value)
    if value is None or type(value) in (str, bool, int, float):
        return value
    raise ValueError(
        f"{path}: {type(value).__name__} has no stable JSON form: give text, numbers, lists or mappings"
    )


def _whole_numbers(value: Any) -> Any:
    # A model's default may be 20 where the same value from a file becomes 20.0.
    if isinstance(value, dict):
        return {key: _whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
