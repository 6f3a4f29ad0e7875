"""The manifest's worker groups and the run's pools, made small enough for one computer."""

from pathlib import Path
from typing import Any

import yaml

from tools.cluster_check.documents import clusters, parse
from tools.cluster_check.pools import of_groups
from tools.rehearsal.head import machine_type

ROOT = Path(__file__).parents[2]
MANIFEST, RUN = "cluster/kuberay/base/rayjob.yaml", "cluster/kuberay/base/run.yaml"
MOST = {"data": 1, "train": 2}
"""Machines of a group; of every other one 2."""
TINY = {
    "data": {
        "kind": "sketch",
        "root": None,
        "sketch_train": 48,
        "sketch_val": 16,
        "sketch_test": 16,
        "rows_per_shard": 32,
    },
    "stage1": {"epochs": 1, "later_epochs": None, "batch_size": 16},
    "stage2": {"epochs": 1, "later_epochs": None, "batch_size": 16},
    "scorers": {"epochs": 2},
    "generation": {"per_emotion": 3, "rows_per_shard": 12},
    "evaluation": {"plain_per_emotion": 2, "pairs": 4},
    "filter": {"eta": 0, "delta": 90},
    "diffusion": {"steps": 2},
}
"""The loop in some minutes: the point is where its work runs."""


def machine_types() -> dict[str, Any]:
    """The worker groups of the RayJob with their labels; a machine has one CPU and no GPU."""
    docs, _ = parse((ROOT / MANIFEST).read_text(encoding="utf-8"), MANIFEST)
    (cluster,) = clusters(docs)
    return {
        group.name: machine_type(most=MOST.get(group.name, 2), labels=group.labels)
        for group in of_groups(cluster)
    }


def settings(run: str) -> dict[str, Any]:
    """A tiny loop with the pools of the RayJob's settings: their labels, and one CPU for each process."""
    docs, _ = parse((ROOT / RUN).read_text(encoding="utf-8"), RUN)
    pools = {
        name: {
            "labels": pool["labels"],
            "fallback": pool.get("fallback", []),
            "memory_gb": 1.0,
            "price_per_node_hour": pool.get("price_per_node_hour"),
            **({} if name == "train" else {"actors": 2}),
        }
        for name, pool in docs[0]["resources"]["pools"].items()
    }
    return {"config": "demo", "run": run, **TINY, "resources": {"workers": 2, "pools": pools}}


def write_settings(folder: Path) -> Path:
    """The same as a file for `--config`; the run lies beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(settings(str(folder / "run"))), encoding="utf-8")
    return path
