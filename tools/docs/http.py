"""The reference of the HTTP interface, from the service's own OpenAPI description, and of its settings."""

import tempfile
from typing import Any, cast, get_type_hints

from tools.docs.settings import sections, settings_table
from tools.docs.tables import code, table
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.service.api.app import make_api
from uniemo_ray.service.app import build_app
from uniemo_ray.service.generations import GenerationStore
from uniemo_ray.service.settings import Limits
from uniemo_ray.store.filesystem import open_store

INTRO = """# HTTP interface

This page is made from the OpenAPI description that a running service gives at `/openapi.json`.
[Serving a model](../serving.md) shows the calls with `curl` and Python.

"""
SETTINGS_INTRO = """---
hide: [navigation]
---

# Service settings

Arguments of the application `uniemo_ray.service.app:build_app`: `key=value` for `serve run`, `args:` in a
Serve config such as `serve/config.yaml`. Sections are nested mappings there.

"""
_METHODS = ("get", "post", "put", "patch", "delete")


def http_page() -> str:
    """Every operation with parameters, body and responses, then the schemas."""
    description = openapi()
    page = f"{INTRO}{description['info']['description']}\n\n"
    for path, operations in description["paths"].items():
        for method in _METHODS:
            if method in operations:
                page += _operation(method, path, operations[method])
    page += "## Schemas\n\n"
    for name, schema in sorted(description["components"]["schemas"].items()):
        page += _schema(name, schema)
    return page


def openapi() -> dict[str, Any]:
    """The description of a service with default limits."""
    with tempfile.TemporaryDirectory() as folder:
        limits = Limits()
        kept = GenerationStore(open_store(folder), ttl_s=limits.result_ttl_s)
        backend = cast(Any, None)  # a description asks no model anything
        return make_api(backend, generation_store=kept, limits=limits, emotions=EMOTIONS).openapi()


def service_settings_page() -> str:
    """Arguments of the Serve application."""
    page = SETTINGS_INTRO
    for section, (text, leaves) in sections(get_type_hints(build_app)["args"]).items():
        title = "application" if section == "run" else section
        page += f"## {title}\n\n{text}\n\n" + settings_table(leaves)
    return page


def _operation(method: str, path: str, entry: dict[str, Any]) -> str:
    text = f"## {method.upper()} {path}\n\n{entry.get('description') or entry.get('summary', '')}\n\n"
    if entry.get("parameters"):
        rows = (
            [code(p["name"]), p["in"], _kind(p.get("schema", {})), p.get("description", "")]
            for p in entry["parameters"]
        )
        text += "**Parameters**\n\n" + table(["Name", "In", "Type", "Meaning"], rows)
    content = entry.get("requestBody", {}).get("content", {})
    if content:
        rows = ([code(media), _kind(body.get("schema", {}))] for media, body in content.items())
        text += "**Body**\n\n" + table(["Content type", "Schema"], rows)
    rows = (
        [status, ", ".join(code(media) for media in answer.get("content", {})), answer.get("description", "")]
        for status, answer in sorted(entry["responses"].items())
    )
    return text + "**Responses**\n\n" + table(["Status", "Content type", "Meaning"], rows)


def _schema(name: str, schema: dict[str, Any]) -> str:
    text = f"### {name}\n\n{schema.get('description', '')}\n\n"
    properties = schema.get("properties", {})
    if not properties:
        return text + f"{_kind(schema)}\n\n"
    required = schema.get("required", [])
    rows = (
        [code(key), _kind(value), "yes" if key in required else "", value.get("description", "")]
        for key, value in properties.items()
    )
    return text + table(["Field", "Type", "Required", "Meaning"], rows)


def _kind(schema: dict[str, Any]) -> str:
    """A schema in a few words; references link to the schema's own section."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(_kind(option) for option in schema[key])
    if "enum" in schema:
        return "one of " + ", ".join(str(value) for value in schema["enum"])
    if "const" in schema:
        return code(str(schema["const"]))
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if kind == "object" and schema.get("properties"):
        return "object with " + ", ".join(code(key) for key in schema["properties"])
    bounds = ((("at least", "minimum"), ("more than", "exclusiveMinimum")), (("at most", "maximum"),))
    found = [f"{words} {schema[key]}" for group in bounds for words, key in group if key in schema]
    return ", ".join([schema.get("format", kind), *found])
