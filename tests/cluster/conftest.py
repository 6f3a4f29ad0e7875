"""Manifests as they are, and the folder of schemas, if there is one."""

import os
import shutil
from pathlib import Path

import pytest

from tools.cluster_check.command import ROOT, VARIABLE
from tools.cluster_check.documents import build, parse
from tools.cluster_check.faults import Document, Fault


def lines(faults: list[Fault]) -> str:
    """Faults as the command prints them."""
    return "\n".join(map(str, faults))


@pytest.fixture
def schemas() -> Path:
    """The folder of custom resources' schemas."""
    folder = os.environ.get(VARIABLE)
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"{VARIABLE} is not set: no schemas of custom resources")
    return Path(folder)


@pytest.fixture
def rayjob() -> Document:
    return read("cluster/kuberay/base/rayjob.yaml")


@pytest.fixture
def rayservice() -> Document:
    return read("cluster/kuberay/base/rayservice.yaml")


@pytest.fixture
def raycluster() -> Document:
    return read("cluster/kuberay/base/raycluster.yaml")


@pytest.fixture
def need_kubectl() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")


def read(path: str) -> Document:
    docs, faults = parse((ROOT / path).read_text(), path)
    assert not faults
    return docs[0]


def built(name: str) -> list[Document]:
    """What Kustomize makes of base or an overlay."""
    docs, faults = build(ROOT / "cluster/kuberay" / name, name)
    assert not faults
    return docs
