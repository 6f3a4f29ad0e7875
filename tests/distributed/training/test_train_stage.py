"""A whole stage on two real workers: Ray Train, the loader, DeepSpeed over gloo."""

from collections import Counter, defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pyarrow import fs
from safetensors.torch import load_file

from tests.distributed.training.train_case import Squares, build, shards
from uniemo_ray.config import Config, TrainConfig
from uniemo_ray.distributed.autoscaling import Growth
from uniemo_ray.distributed.training import cluster_decode
from uniemo_ray.distributed.training.cluster_decode import check_spare_cpu
from uniemo_ray.distributed.training.resume import last_checkpoint
from uniemo_ray.distributed.training.train_stage import (
    TrainResult,
    _check_rows,
    train_stage,
)
from uniemo_ray.training.stage_settings import StageSettings

ROWS, BATCH, EPOCHS = 81, 8, 2
STEPS = 10


def stage(folder: Path, *, crash: dict[str, Any] | None = None, **train: Any) -> TrainResult:
    (folder / "log").mkdir(exist_ok=True)
    config = Config.model_validate(
        {
            "data": {"sketch_train": ROWS},
            "stage1": {"epochs": EPOCHS, "batch_size": BATCH, "warmup_steps": 2, **train},
        }
    )
    return train_stage(
        settings=StageSettings(stage="understanding", config=config),
        data=shards(str(folder / "shards"), ROWS),
        val=shards(str(folder / "shards"), 21, prefix="val"),
        storage=str(folder / "storage"),
        name="tiny",
        build=partial(build, log=str(folder / "log"), crash=crash),
    )


def steps_by_rank(folder: Path) -> dict[str, dict[int, list[int]]]:
    """File (one per process and rank) to local step to row numbers."""
    files: dict[str, dict[int, list[int]]] = {}
    for path in sorted((folder / "log").glob("ids-*.txt"), key=lambda path: path.stat().st_ctime):
        steps: dict[int, list[int]] = defaultdict(list)
        for line in path.read_text().splitlines():
            step, row = map(int, line.split())
            steps[step].append(row)
        files[path.name] = dict(steps)
    return files


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(("zero_stage", "precision"), [(1, "fp32"), (3, "bf16")])
def test_two_workers_train_and_share_the_rows(
    tmp_path: Path, ray_session: None, zero_stage: int, precision: str
) -> None:
    result = stage(tmp_path, zero_stage=zero_stage, precision=precision, checkpoint_every_s=1e6)
    assert (result.images, result.left_out, result.attempts) == (160, 2, 1)
    losses = [record["loss"] for record in result.history if record["kind"] == "step"]
    assert len(losses) == EPOCHS * STEPS
    assert sum(losses[-5:]) < sum(losses[:5])
    epochs = [record for record in result.history if record["kind"] == "epoch"]
    assert [record["step"] for record in epochs] == [STEPS, 2 * STEPS]
    assert epochs[1]["val_loss"] < epochs[0]["val_loss"]
    ranks = list(steps_by_rank(tmp_path).values())
    assert [len(steps) for steps in ranks] == [2 * STEPS, 2 * STEPS]
    orders = []
    for epoch in range(EPOCHS):
        span = range(1 + STEPS * epoch, 1 + STEPS * (epoch + 1))
        seen = [row for steps in ranks for step in span for row in steps[step]]
        assert len(seen) == len(set(seen)) == 80
        orders.append(seen)
    assert orders[0] != orders[1]
    net = Squares().net
    net.load_state_dict(load_file(result.weights))
    assert all(parameter.dtype == torch.float32 for parameter in net.parameters())
    records = Path(result.records)
    assert len((records / "metrics.jsonl").read_text().splitlines()) == len(result.history)
    assert list(records.glob("events.out.tfevents.*"))
    again = stage(tmp_path, zero_stage=zero_stage, precision=precision, checkpoint_every_s=1e6)
    assert again.attempts == 0
    assert (again.history, again.weights) == (result.history, result.weights)


@pytest.mark.ray
@pytest.mark.slow
def test_the_best_epoch_is_what_a_killed_and_resumed_stage_leaves(tmp_path: Path, ray_session: None) -> None:
    """Its accuracy falls, so the first of three epochs counts, though a worker dies in the second."""
    folders = [tmp_path / "one", tmp_path / "three"]
    for folder in folders:
        folder.mkdir()
    options = {"schedule": "constant", "checkpoint_every_s": 1e6}
    one = stage(folders[0], epochs=1, **options)
    crash = {"kind": "kill", "step": STEPS + 3}
    three = stage(folders[1], epochs=3, keep_epoch="best", crash=crash, **options)
    assert three.attempts == 2
    assert [r["epoch"] for r in three.history if r["kind"] == "epoch"] == [0, 1, 2]
    first, kept = load_file(one.weights), load_file(three.weights)
    assert all(torch.equal(value, kept[name]) for name, value in first.items())
    assert not list(Path(three.records).glob("best-*"))


@pytest.mark.ray
@pytest.mark.slow
def test_a_stage_whose_accuracy_falls_ends_early_with_averaged_weights(
    tmp_path: Path, ray_session: None
) -> None:
    """It ends after the second of three epochs, and stays ended when it is submitted again."""
    options = {"epochs": 3, "schedule": "constant", "checkpoint_every_s": 1e6}
    options |= {"stop_after_epochs_without_gain": 1, "ema_decay": 0.9}
    result = stage(tmp_path, **options)
    assert [r["epoch"] for r in result.history if r["kind"] == "epoch"] == [0, 1]
    assert result.images == 2 * 80
    again = stage(tmp_path, **options)
    assert (again.attempts, again.weights) == (0, result.weights)
    (tmp_path / "plain").mkdir()
    plain = stage(tmp_path / "plain", **options | {"ema_decay": None})
    trained, averaged = load_file(plain.weights), load_file(result.weights)
    assert any(not torch.equal(value, averaged[name]) for name, value in trained.items())


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_worker_costs_no_image_and_repeats_none(
    tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    result = stage(tmp_path, crash={"step": 17, "kind": "kill"}, checkpoint_every_s=1e-6, checkpoint_share=1)
    assert (tmp_path / "log" / "crashed").exists()
    assert (result.images, result.left_out, result.attempts) == (160, 2, 2)
    *before, _, _ = steps_by_rank(tmp_path).values()
    after = list(steps_by_rank(tmp_path).values())[2:]
    assert len(before) == len(after) == 2
    resumed_at = 2 * STEPS - len(after[0])
    assert STEPS < resumed_at < 17, "the checkpoint must lie inside the second epoch"
    kept = [row for steps in before for step in range(STEPS + 1, resumed_at + 1) for row in steps[step]]
    rest = [row for steps in after for step in steps for row in steps[step]]
    assert max(Counter(kept + rest).values()) == 1
    assert len(kept + rest) == 80
    steps = [record["step"] for record in result.history if record["kind"] == "step"]
    assert steps == list(range(1, 2 * STEPS + 1))


@pytest.mark.ray
def test_decoding_in_the_cluster_needs_a_spare_cpu(ray_session: None) -> None:
    check_spare_cpu(Config(resources={"workers": 1}), "stage1")
    with pytest.raises(ValueError, match=r"take 2 of 2 CPUs.*set stage2\.decode to worker"):
        check_spare_cpu(Config(resources={"workers": 2}), "stage2")


@pytest.mark.ray
def test_with_an_autoscaler_a_missing_cpu_is_only_said(
    ray_session: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cluster_decode, "growth", lambda: Growth(types=()))
    check_spare_cpu(Config(resources={"workers": 2}), "stage2")
    assert "so none is left to decode: it waits for a machine of pool data" in caplog.text
    caplog.clear()
    data = {"data": {"labels": {"uniemo/pool": "data"}, "memory_gb": 1}}
    check_spare_cpu(Config(resources={"workers": 2, "pools": data}), "stage2")
    assert "take 0 of 0 CPUs" in caplog.text


def test_a_folder_without_checkpoints_starts_anew(tmp_path: Path) -> None:
    assert last_checkpoint(fs.LocalFileSystem(), str(tmp_path / "nothing"), epochs=1) is None


def test_too_few_images_are_an_error_before_anything_starts() -> None:
    with pytest.raises(ValueError, match=r"7 training images.*batch of 8"):
        _check_rows(7, TrainConfig(batch_size=8))
