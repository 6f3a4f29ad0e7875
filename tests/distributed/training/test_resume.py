"""Checkpoints whose upload was cut off."""

import json
from pathlib import Path

from pyarrow import fs

from uniemo_ray.distributed.training.resume import SNAPSHOT, remove_orphans


def test_what_ray_never_learnt_of_is_removed_and_nothing_else(tmp_path: Path) -> None:
    def entry(name: str) -> dict[str, object]:
        return {"version": 0, "checkpoint_dir_name": name, "metrics": {}}

    names = ["checkpoint_1", "checkpoint_2"]
    snapshot = {
        "ray_version": "2.60.0",
        "checkpoint_results": [entry(name) for name in names],
        "checkpoint_report_indices": [0, 1],
        "latest_checkpoint_result": entry("checkpoint_2"),
        "pending_training_results": [],
        "pending_validation_specs": [],
        "current_report_index": 2,
        "validated_checkpoint_dir_names": [],
        "timed_out_validation_checkpoint_dir_names": [],
        "failed_validation_checkpoint_dir_names": [],
    }
    for name in [*names, "checkpoint_3", "records"]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    (tmp_path / SNAPSHOT).write_text(json.dumps(snapshot))
    assert remove_orphans(fs.LocalFileSystem(), str(tmp_path)) == ["checkpoint_3"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, "records", SNAPSHOT])


def test_before_the_first_complete_checkpoint_all_are_removed(tmp_path: Path) -> None:
    assert remove_orphans(fs.LocalFileSystem(), str(tmp_path / "nothing")) == []
    (tmp_path / "checkpoint_1").mkdir()
    assert remove_orphans(fs.LocalFileSystem(), str(tmp_path)) == ["checkpoint_1"]
