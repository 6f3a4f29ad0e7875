"""The reference of all settings, from the models in `uniemo_ray/config/` and their field docstrings."""

import json
import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tools.docs.tables import code, table
from uniemo_ray.config import Config

INTRO = """---
hide: [navigation]
---

# Settings

Every setting of a run, with its default. This page is made from `uniemo_ray/config/`.

A YAML file changes settings (`--config FILE`), and so does the command line (`--set a.b=value`, repeatable;
the value is YAML). A file may start from presets with `preset: NAME`. A wrong name or value is reported in
one line before anything starts.

*Source* says where the default comes from: the paper, the released code, or this project (ours).

"""
_PARTS = re.compile(r"^(?P<text>.*?)(?:\s*Unit: (?P<unit>[^.]*)\.)?(?:\s*Source: (?P<source>.*)\.)?$", re.S)


class Setting(NamedTuple):
    """One leaf of a settings model."""

    key: str
    """Dotted key, as `--set` takes it."""
    default: str
    """As JSON; empty where the setting is required."""
    values: str
    """What it accepts."""
    text: str
    unit: str
    """Empty for `none` and for settings that are no numbers."""
    source: str


def settings_page() -> str:
    """The page."""
    page = INTRO
    for section, (text, leaves) in sections(Config).items():
        page += f"## {section}\n\n{text}\n\n" + settings_table(leaves)
    return page


def sections(model: type[BaseModel]) -> dict[str, tuple[str, list[Setting]]]:
    """Docstring and leaves of every section of a model; its own leaves come first, under `run`."""
    nested = {name: field for name, field in model.model_fields.items() if _model(field)}
    own = [setting("", name, field) for name, field in model.model_fields.items() if name not in nested]
    found = {"run": (_text(model), own)}
    for name, field in nested.items():
        found[name] = (_text(_model(field)), list(_leaves(name, field)))
    return found


def setting(prefix: str, name: str, field: FieldInfo, default: Any = PydanticUndefined) -> Setting:
    """One field; `default` is that of the section, if the section has one."""
    parts = _PARTS.match(" ".join((field.description or "").split()))
    assert parts is not None
    unit = parts["unit"] or ""
    value = field.get_default(call_default_factory=True) if default is PydanticUndefined else default
    shown = "" if value is PydanticUndefined else json.dumps(value, default=str).replace('"', "")
    key = f"{prefix}.{name}" if prefix else name
    return Setting(
        key, shown, _values(field), parts["text"], "" if unit == "none" else unit, parts["source"] or ""
    )


def _leaves(prefix: str, field: FieldInfo) -> Iterator[Setting]:
    model, section = _model(field), field.get_default(call_default_factory=True)
    for name, inner in model.model_fields.items():
        if _model(inner):
            yield from _leaves(f"{prefix}.{name}", inner)
        else:
            yield setting(prefix, name, inner, getattr(section, name))


def _model(field: FieldInfo) -> Any:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _text(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def _values(field: FieldInfo) -> str:
    kind: Any = field.annotation
    if get_origin(kind) is Literal:
        return ", ".join(str(value) for value in get_args(kind))
    options = [value for part in get_args(kind) if get_origin(part) is Literal for value in get_args(part)]
    if options:
        return ("list of " if get_origin(kind) is tuple else "") + ", ".join(str(value) for value in options)
    name = kind.__name__ if isinstance(kind, type) else str(kind)
    name = name.replace("typing.", "").replace(" | None", " or null")
    return ", ".join([name, *_bounds(field)])


def _bounds(field: FieldInfo) -> Iterator[str]:
    signs = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    for bound in field.metadata:
        for key, words in signs.items():
            if hasattr(bound, key):
                yield f"{words} {getattr(bound, key)}"


def settings_table(leaves: list[Setting]) -> str:
    """Settings as a table; units and sources have a column if any setting states one."""
    extra = [name for name in ("unit", "source") if any(getattr(leaf, name) for leaf in leaves)]
    rows = (
        [
            code(leaf.key),
            code(leaf.default),
            f"{leaf.text} *({leaf.values})*",
            *(getattr(leaf, name) for name in extra),
        ]
        for leaf in leaves
    )
    return table(["Setting", "Default", "Meaning", *(name.capitalize() for name in extra)], rows)
