"""Settings from a YAML file (`--config`) and from repeated `--set a.b=value`, over the presets they name.

A typo names its key. Presets lie in `presets/*.yaml` beside this file.
"""

import json
import re
import shlex
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from uniemo_ray.addresses import local_path
from uniemo_ray.config import Config
from uniemo_ray.text import one_line

_YAML_ONLY = ("[", "{", '"', "'")
_NOTHING = ("", "null", "~")
_NAME = re.compile(r"[a-z][a-z0-9_]*:")
PRESETS = Path(str(files("uniemo_ray") / "presets"))


def load_config(path: str | None, overrides: list[str], *, base: Mapping[str, Any] | None = None) -> Config:
    """Read a YAML file and apply `a.b=value` overrides (values are YAML).

    A top-level `config: NAME` in the file starts from a shipped config, such as `demo`.
    A top-level `preset: NAME` in the file, or `preset=NAME` among the overrides, starts from
    `presets/NAME.yaml`; of a list of names, the later ones count.

    Args:
        path: YAML file, the name of a shipped one (`demo`), or None.
        overrides: of the command line. A value is YAML where it is a number, a flag, empty, or begins with a
            bracket or a quote; any other is the text itself (`@x`, `50% of it`, `a #b`).
        base: settings below all of these, such as those of a model.

    Raises:
        ValueError: one line that names the file or key, what is wrong and what is expected.
    """
    values = _overridden(_read_config(_config_path(path)) if path else {}, overrides)
    return _validated(_merge(dict(base or {}), _on_presets(values)), source=path or "defaults")


def build_config(
    values: dict[str, Any], *, overrides: list[str], over: Mapping[str, Any], source: str
) -> Config:
    """A config from values as a file holds them, below `A.B=VALUE` overrides, below plain values.

    Args:
        values: with `config` and `preset` as in a file.
        overrides: of the command line.
        over: values by dotted name, which count most; a `preset` replaces that of `values`.
        source: named in errors.

    Raises:
        ValueError: one line that names the key, what is wrong and what is expected.
    """
    values = _on_config(values) | {key: over[key] for key in over if key == "preset"}
    values = _on_presets(_overridden(values, overrides))
    for name, value in over.items():
        if name == "preset":
            continue
        values = _merge(values, _nest(name.split("."), value))
    return _validated(values, source=source)


def _overridden(values: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise ValueError(f"--set expects a.b=value, got {override!r}")
        values = _merge(values, _nest(key.strip().split("."), _value(key.strip(), text)))
    return values


def _validated(values: dict[str, Any], *, source: str) -> Config:
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ValueError(_explain(error, source=source)) from None


def _value(key: str, text: str) -> Any:
    """What `--set key=text` means.

    Raises:
        ValueError: a bracket or quote that does not close, with the command line that gives it as text.
    """
    bare = text.strip()
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        if not bare.startswith(_YAML_ONLY):
            return bare
        quoted = shlex.quote(f"{key}={json.dumps(bare, ensure_ascii=False)}")
        raise ValueError(
            f"--set {key}: {bare[:80]!r} begins as YAML and is none; if meant as text, write --set {quoted}"
        ) from None
    if bare.startswith(_YAML_ONLY) or bare.lower() in _NOTHING:
        return value
    if isinstance(value, dict) and all(_NAME.match(bare) and x is not None for x in value.values()):
        return value  # stage1=epochs: 3
    # YAML would take a comment off, and make a date of 2024-01-01.
    return value if isinstance(value, bool | int | float) else bare


def _on_presets(values: dict[str, Any]) -> dict[str, Any]:
    """`values` over the presets that they name, which may name others."""
    named = values.get("preset") or []
    base: dict[str, Any] = {}
    for name in [named] if isinstance(named, str) else named:
        base = _merge(base, _on_presets(_read_yaml(preset_path(str(name)))))
    return _merge(base, {key: value for key, value in values.items() if key != "preset"})


def _read_config(path: Path) -> dict[str, Any]:
    """A config file, over the shipped config that it names under `config`."""
    return _on_config(_read_yaml(path))


def _on_config(values: dict[str, Any]) -> dict[str, Any]:
    named, own = values.get("config"), {key: value for key, value in values.items() if key != "config"}
    return own if named is None else _merge(_read_yaml(preset_path(str(named))), own)


def _config_path(text: str) -> Path:
    """The file that `--config` means: one that exists, else a shipped one of that name."""
    path = local_path(text)
    return path if path.is_file() or len(path.parts) > 1 or path.suffix else preset_path(text)


def preset_path(name: str) -> Path:
    """File of a shipped preset.

    Raises:
        ValueError: there is none of that name; the known ones are listed.
    """
    path = PRESETS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
        raise ValueError(f"there is no preset {name!r}: expected one of {known}, or a YAML file")
    return path


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"config file {path} does not exist")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"config file {path} is no valid YAML: {one_line(error)}") from None
    if not isinstance(values, dict):
        raise ValueError(f"config file {path} must hold a mapping of settings, got {type(values).__name__}")
    return values


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _nest(keys: list[str], value: Any) -> dict[str, Any]:
    return {keys[0]: value if len(keys) == 1 else _nest(keys[1:], value)}


def _explain(error: ValidationError, *, source: str) -> str:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "config"
        is_unknown, is_ours = item["type"] == "extra_forbidden", item["type"] == "value_error"
        message = "unknown setting" if is_unknown else item["msg"].removeprefix("Value error, ")
        lines.append(f"{key}: {message}" + ("" if is_ours else f" (got {item['input']!r})"))
    return f"{source}: " + "; ".join(lines)
