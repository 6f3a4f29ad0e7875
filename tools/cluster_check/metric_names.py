"""Names of the metrics that this package and Ray export, read from their code."""

import ast
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from uniemo_ray.service.api.metrics import Metrics

PROMETHEUS = frozenset({"up"})
_HISTOGRAM = ("_bucket", "_sum", "_count")
_RAY_SOURCES = ("dashboard/modules/reporter/reporter_agent.py",)
_KINDS = ("Counter", "Gauge", "Histogram")


@cache
def known_names() -> frozenset[str]:
    """Every name that an expression may use."""
    package = Path(__file__).parents[2] / "uniemo_ray"
    return PROMETHEUS | service_names() | application_names(package) | ray_names()


def service_names() -> frozenset[str]:
    """What the service shows at /metrics."""
    names: set[str] = set()
    for family in Metrics().registry.collect():
        names |= _exported(family.name, family.type)
    return frozenset(names)


def application_names(package: Path) -> frozenset[str]:
    """What actors and drivers tell Ray, which puts `ray_` before it."""
    names: set[str] = set()
    for path in package.rglob("*.py"):
        text = path.read_text()
        if "metrics." not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in _KINDS
            ):
                owner, first = node.func.value, node.args[0] if node.args else None
                if isinstance(owner, ast.Name) and owner.id == "metrics" and isinstance(first, ast.Constant):
                    names |= _exported(f"ray_{first.value!s}", node.func.attr.lower())
    return frozenset(names)


def ray_names() -> frozenset[str]:
    """Metrics of machines and clusters that Ray's own agent exports."""
    spec = find_spec("ray")
    if spec is None or spec.origin is None:
        return frozenset()
    folder = Path(spec.origin).parent
    text = "".join((folder / source).read_text() for source in _RAY_SOURCES)
    return frozenset(f"ray_{name}" for name in re.findall(r'Gauge\(\s*"(\w+)"', text))


def _exported(name: str, kind: str) -> set[str]:
    if kind == "counter":
        return {f"{name}_total"}
    return {name + ending for ending in _HISTOGRAM} if kind == "histogram" else {name}
