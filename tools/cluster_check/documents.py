"""YAML files, and what Kustomize makes of them."""

import re
import subprocess
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tools.cluster_check.faults import Document, Fault, tool

TIMEOUT_S = 60
_LOG_PREFIX = re.compile(r"^(error: |E\d{4} \S+ +\d+ \S+\] )")
SPECS = {"RayJob": "rayClusterSpec", "RayService": "rayClusterConfig", "RayCluster": ""}
"""Where each kind has its cluster, below `spec`."""


class _Loader(yaml.SafeLoader):
    """A loader that refuses a key that is there twice; YAML's own takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{name!r} is there twice", key.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep=deep)


class Cluster(NamedTuple):
    """The Ray cluster of a RayJob, RayService or RayCluster."""

    kind: str
    name: str
    where: str
    spec: Document


def parse(text: str, file: str) -> tuple[list[Document], list[Fault]]:
    """All documents of a text, or the one fault that hides them."""
    try:
        return [doc for doc in yaml.load_all(text, _Loader) if doc is not None], []
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        return [], [Fault(file, f"line {mark.line + 1}" if mark else "", str(problem or error))]


def build(folder: Path, file: str) -> tuple[list[Document], list[Fault]]:
    """The documents that `kubectl kustomize` makes of a folder.

    Raises:
        NotCheckedError: kubectl is not installed.
    """
    command = [tool("kubectl", "Debian package kubernetes-client"), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["kustomize failed"])[-1]
        return [], [Fault(file, "kustomize", _LOG_PREFIX.sub("", last))]
    return parse(done.stdout, file)


def name_of(doc: Document) -> str:
    """`Kind name`, as faults show a document."""
    return f"{doc.get('kind', 'no kind')} {(doc.get('metadata') or {}).get('name', 'without a name')}"


def clusters(docs: list[Document]) -> Iterator[Cluster]:
    """The Ray clusters of all documents."""
    for doc in docs:
        kind = str(doc.get("kind"))
        if kind in SPECS:
            below = SPECS[kind]
            spec = doc.get("spec") or {}
            inner = spec.get(below) if below else spec
            yield Cluster(kind, str(doc["metadata"].get("name")), name_of(doc), inner or {})


def groups(cluster: Cluster) -> list[Document]:
    """Worker groups of a cluster."""
    return list(cluster.spec.get("workerGroupSpecs") or [])


def repeated(docs: list[Document], file: str) -> list[Fault]:
    """Documents that two entries describe: the last would win."""
    seen, faults = set(), []
    for doc in docs:
        meta = doc.get("metadata") or {}
        key = (doc.get("apiVersion"), doc.get("kind"), meta.get("namespace"), meta.get("name"))
        if key in seen:
            faults.append(Fault(file, name_of(doc), "is there twice"))
        seen.add(key)
    return faults
