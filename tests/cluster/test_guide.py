"""What the guide shows exists: files, parts of a build, names of resources."""

import re

import pytest

from tests.cluster.conftest import built
from tools.cluster_check.command import ROOT, main

GUIDE = (ROOT / "docs/guides/cluster.md").read_text()
_BLOCK = re.compile(r"^```bash\n(.*?)^```", re.S | re.M)
COMMANDS = [line for block in _BLOCK.findall(GUIDE) for line in block.replace("\\\n", " ").splitlines()]


def test_every_file_that_a_command_names_is_there():
    named = {path for line in COMMANDS for path in re.findall(r"\bcluster/[\w./-]+", line)}
    assert len(named) >= 8
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_every_command_to_build_an_image_names_a_target():
    dockerfile = (ROOT / "cluster/image/Dockerfile").read_text()
    targets = [re.search(r"--target (\w+) ", line) for line in COMMANDS if line.startswith("docker build")]
    assert [found[1] for found in targets if found] == ["cpu", "cuda"]
    assert all(f" AS {found[1]}\n" in dockerfile for found in targets if found)
    assert all(line in dockerfile for line in COMMANDS if line.startswith("docker build"))


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("kubectl apply -k")])
def test_every_applied_part_holds_what_it_names(line, need_kubectl):
    folder = re.search(r"cluster/kuberay/(\S+)", line)
    assert folder
    docs = built(folder[1])
    wanted = re.search(r"in \((.*)\)", line)
    parts = wanted[1].split(", ") if wanted else []
    found = {
        part: [d for d in docs if (d["metadata"].get("labels") or {}).get("uniemo/part") == part]
        for part in parts
    }
    assert all(found.values())


@pytest.mark.parametrize("name", ["base", "overlays/eks", "overlays/gke", "overlays/kueue", "overlays/dev"])
def test_every_document_belongs_to_a_part(name, need_kubectl):
    parts = {doc["metadata"].get("labels", {}).get("uniemo/part") for doc in built(name)}
    assert parts <= {"shared", "loop", "service", "dev"}


def test_names_that_kubectl_commands_use_are_those_of_the_manifests(need_kubectl):
    names = {(doc["kind"], doc["metadata"]["name"]) for doc in built("overlays/eks")}
    assert {("RayJob", "feedback-loop"), ("RayService", "uniemo"), ("RayCluster", "uniemo-dev")} <= names
    for name in ("rayjob feedback-loop", "svc/uniemo-dev-head-svc", "secret uniemo-dev", "uniemo-serve-svc"):
        assert name in GUIDE


def test_the_files_say_that_no_cloud_run_has_been_made():
    files = [
        *ROOT.glob("cluster/launcher/*.yaml"),
        *ROOT.glob("cluster/kuberay/overlays/*/kustomization.yaml"),
        *(ROOT / f"cluster/kuberay/base/{name}.yaml" for name in ("rayjob", "rayservice", "raycluster")),
        ROOT / "README.md",
        ROOT / "docs/guides/cluster.md",
    ]
    silent = [str(p) for p in files if "o cloud run has been made" not in " ".join(p.read_text().split())]
    assert silent == []


@pytest.mark.slow
def test_the_command_ends_without_a_fault(capsys, monkeypatch):
    monkeypatch.delenv("UNIEMO_K8S_SCHEMAS", raising=False)
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert "0 faults" in shown
    assert "give the folder of schemas with --schemas or UNIEMO_K8S_SCHEMAS" in shown


def test_the_command_prints_a_fault_and_ends_with_2(capsys, monkeypatch, tmp_path):
    from tools.cluster_check import command
    from tools.cluster_check.faults import Fault
    from tools.cluster_check.manifests import Manifests

    def checks(self):
        yield (
            "one",
            lambda: [Fault("a.yaml", "b", "is wrong\nin two lines"), Fault("a.yaml", "b", "is wrong")],
        )

    monkeypatch.setattr(Manifests, "checks", checks)
    assert command.main(["--schemas", str(tmp_path)]) == 2
    assert capsys.readouterr().out.splitlines() == [
        "a.yaml: b: is wrong in two lines",
        "a.yaml: b: is wrong",
        "1 checks made, 2 faults",
    ]
