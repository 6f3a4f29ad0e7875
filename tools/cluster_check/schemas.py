"""Kubernetes documents against their schemas: those of custom resources, made strict, and Kubernetes' own."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tools.cluster_check.documents import name_of
from tools.cluster_check.faults import Document, Fault, NotCheckedError, library

KUBERNETES = "1.35"
CUSTOM = {
    "raycluster": ("ray.io/v1", "RayCluster"),
    "rayjob": ("ray.io/v1", "RayJob"),
    "rayservice": ("ray.io/v1", "RayService"),
    "podmonitor": ("monitoring.coreos.com/v1", "PodMonitor"),
    "prometheusrule": ("monitoring.coreos.com/v1", "PrometheusRule"),
}
"""Custom resources by the word in their schema's file name, such as `kuberay-1.7.0-rayjob-v1.json`."""
LONGEST = 160


def check_document(doc: Document, file: str, schemas: Path | None) -> list[Fault]:
    """Faults of a document against its schema and, for custom resources, the rules inside the schema.

    Raises:
        NotCheckedError: the schemas, or the library that reads them, are missing.
    """
    key = (doc.get("apiVersion"), doc.get("kind"))
    is_custom = key in CUSTOM.values()
    found = _custom(doc, _schema(schemas, str(key[1]))) if is_custom else _own(doc)
    return [Fault(file, name_of(doc), line) for line in found]


def _own(doc: Document) -> list[str]:
    validate = library("kubernetes_validate")
    try:
        validate.validate(doc, KUBERNETES, strict=True)
    except validate.ValidationError as error:
        path = ".".join(map(str, error.path))
        return [f"{path}: {error.message}" if path else str(error.message)]
    except (validate.SchemaNotFoundError, validate.InvalidSchemaError):
        return [f"there is no kind {doc.get('kind')!r} in {doc.get('apiVersion')!r}"]
    return []


@cache
def _schema(folder: Path | None, kind: str) -> dict[str, Any]:
    if folder is None or not folder.is_dir():
        raise NotCheckedError(
            f"no schema of {kind}: give the folder of schemas with --schemas or UNIEMO_K8S_SCHEMAS"
        )
    word = next(word for word, (_, name) in CUSTOM.items() if name == kind)
    files = sorted(folder.glob(f"*-{word}-v1.json"))
    if not files:
        raise NotCheckedError(f"no schema of {kind}: {folder} has no *-{word}-v1.json")
    return dict(json.loads(files[-1].read_text()))


def _custom(doc: Document, schema: dict[str, Any]) -> list[str]:
    jsonschema = library("jsonschema")
    strict = _strict(schema)
    strict["properties"]["metadata"] = {"type": "object"}
    errors = sorted(
        jsonschema.Draft7Validator(strict).iter_errors(doc), key=lambda error: list(map(str, error.path))
    )
    found = [f"{'.'.join(map(str, error.absolute_path))}: {error.message[:LONGEST]}" for error in errors]
    return found or list(_broken_rules(schema, doc, "self"))


def _strict(schema: Any) -> Any:
    """The schema with no field beyond those it names, and int-or-string as two types."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(part) for key, part in schema.items()}
    if strict.get("x-kubernetes-int-or-string"):
        strict.pop("anyOf", None)
        strict["type"] = ["integer", "string"]
    is_open = "additionalProperties" in strict or strict.get("x-kubernetes-preserve-unknown-fields")
    if strict.get("type") == "object" and "properties" in strict and not is_open:
        strict["additionalProperties"] = False
    return strict


def _broken_rules(schema: dict[str, Any], value: Any, where: str) -> Iterator[str]:
    """`x-kubernetes-validations` that do not hold; rules with `oldSelf` have nothing to compare."""
    cel = library("cel")
    for rule in schema.get("x-kubernetes-validations", []):
        if "oldSelf" in rule["rule"]:
            continue
        try:
            holds = cel.evaluate(rule["rule"], {"self": value})
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            yield f"{where}: the rule {rule['rule']!r} cannot be computed: {error}"
            continue
        if holds is not True:
            yield f"{where}: {rule.get('message') or rule['rule']}"
    if isinstance(value, dict):
        others = schema.get("additionalProperties")
        for key, part in value.items():
            below = schema.get("properties", {}).get(key) or (others if isinstance(others, dict) else None)
            if below:
                yield from _broken_rules(below, part, f"{where}.{key}")
    if isinstance(value, list) and "items" in schema:
        for place, part in enumerate(value):
            yield from _broken_rules(schema["items"], part, f"{where}[{place}]")
