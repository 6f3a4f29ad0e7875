"""The loop on the manifest's worker groups, as machines of this computer that Ray's autoscaler starts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.rehearsal.shapes import ROOT, machine_types, settings
from tools.rehearsal.watch import RANK, Record
from uniemo_ray.config import Config
from uniemo_ray.loop.step_tables import feedback_loop_steps
from uniemo_ray.settings_file import load_config

LABELS = {"data": {"uniemo/pool": "data", "ray.io/node-id": "n"}, "head": {}}


def test_machines_have_the_labels_of_the_manifest_and_one_cpu() -> None:
    types = machine_types()
    assert list(types) == ["data", "train", "generate", "generate-ondemand"]
    assert {name: type_["labels"]["uniemo/pool"] for name, type_ in types.items()} == {
        "data": "data",
        "train": "train",
        "generate": "generate",
        "generate-ondemand": "generate",
    }
    assert {type_["resources"]["CPU"] for type_ in types.values()} == {1}
    assert not any("GPU" in type_["resources"] for type_ in types.values())


def test_the_tiny_run_has_the_pools_of_the_manifest(tmp_path: Path) -> None:
    import yaml

    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings("runs/x")))
    config = load_config(str(tmp_path / "run.yaml"), [])
    real = load_config(str(ROOT / "cluster/kuberay/base/run.yaml"), [])
    for name in ("data", "features", "generate", "train"):
        own, other = (getattr(each.resources.pools, name) for each in (config, real))
        assert (own.labels, own.fallback) == (other.labels, other.fallback)
        assert own.labels


def test_a_record_notes_changes_and_places() -> None:
    def node(name: str) -> dict[str, object]:
        return {"NodeID": name, "Alive": True, "Labels": LABELS[name]}

    def actor(name: str, where: str, *, kind: str = "MapWorker", state: str = "ALIVE") -> dict[str, object]:
        return {"Name": name, "ActorClassName": kind, "State": state, "Address": {"NodeID": where}}

    record = Record({"data": {"uniemo/pool": "data"}})
    assert record.add([node("head")], {}, seconds=0)
    assert not record.add([node("head")], {}, seconds=1)
    actors = [
        actor("generate-1-0123456789ab-2", "data"),
        actor("", "data", kind="x.RayTrainWorker"),
        actor("other", "data"),
        actor("score-1-0123456789ab-1", "data", state="DEAD"),
    ]
    assert record.add([node("head"), node("data")], dict(enumerate(actors)), seconds=2)  # type: ignore[arg-type]
    assert record.counts == [(0, {}), (2, {"data": 1})]
    assert record.places == {"generate-1": {"data": 1}, RANK: {"data": 1}}
    assert record.most() == {"data": 1}


def pools_of_steps() -> dict[str, str | None]:
    return {row.name: row.pool for row in feedback_loop_steps(Config())}


@pytest.mark.integration
@pytest.mark.timeout(1800)
def test_the_loop_from_no_machine_and_back(tmp_path: Path) -> None:
    seen = tmp_path / "seen.json"
    done = subprocess.run(
        [sys.executable, "-m", "tools.rehearsal", "--record", str(seen), "--folder", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(seen.read_text())
    counts, places = [groups for _, groups in record["counts"]], record["places"]
    assert counts[0] == counts[-1] == {}
    assert counts[1] == {"data": 1}, "ingest needs a machine of its own pool and no other"
    assert max(groups.get("train", 0) for groups in counts) == 2
    assert set(places.pop(RANK)) == {"train"}
    declared = pools_of_steps()
    assert {"features", "generate-1", "generate-plain", "encode-1"} <= set(places)
    for step, found in places.items():
        pool = str(declared[step])
        # features ask for an L4, and take what trains where none is there
        assert set(found) <= {"features": {"generate", "train"}}.get(pool, {pool}), step
    log = "\n".join(record["log"])
    assert "ingest: waits for a machine of pool data (uniemo/pool=data) since " in log
    assert "understanding-1: waits for a machine of pool train" in log
    assert (tmp_path / "run" / "summary.json").is_file()
