"""Settings that were renamed: a config with an old name is refused in one line that gives the new name."""

from collections.abc import Mapping
from typing import Any


def refuse_renamed(values: Any, new_names: Mapping[str, str]) -> Any:
    """Check the keys of a settings section; call it from a `model_validator(mode="before")`.

    Args:
        values: the section as it was read. Anything but a dict is passed on for pydantic to refuse.
        new_names: old name to new name.

    Returns:
        The values, unchanged.

    Raises:
        ValueError: the section holds an old name.
    """
    if isinstance(values, dict):
        for old, new in new_names.items():
            if old in values:
                raise ValueError(f"{old} was renamed: write {new} instead")
    return values
