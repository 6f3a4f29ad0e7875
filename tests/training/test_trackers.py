"""Metrics in Weights & Biases and MLflow, with the real packages where they are installed, offline."""

from pathlib import Path

import pytest

from uniemo_ray.training.records import MetricLog
from uniemo_ray.training.trackers import MlflowTracker, Tracked, WandbTracker, make_trackers

FIRST = [{"kind": "step", "step": step, "loss": 1.0 / step} for step in (1, 2)]
LATER = [{"kind": "step", "step": 3, "loss": 0.25}]


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


def log_twice(folder: Path, name: str) -> None:
    """A stage that is stopped after two steps and goes on."""
    for history, records in (([], FIRST), (FIRST, LATER)):
        trackers = make_trackers([name], Tracked("stage", "abc", folder, len(history)))
        with MetricLog(folder, history, trackers) as log:
            for record in records:
                log.write(record, section="step")
            log.flush()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_mlflow_keeps_one_run_over_restarts(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    log_twice(tmp_path, "mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("uniemo_ray")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("stage", "FINISHED")
    history = client.get_metric_history(run.info.run_id, "step/loss")
    assert [(one.step, one.value) for one in history] == [(1, 1.0), (2, 0.5), (3, 0.25)]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_wandb_is_offline_without_a_key(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    log_twice(tmp_path, "wandb")
    runs = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(runs) >= 1
    files = [path for run in runs for path in run.glob("*.wandb")]
    assert {path.name for path in files} == {"run-abc.wandb"}
    data = b"".join(path.read_bytes() for path in files)
    assert b"step/loss" in data


@pytest.mark.parametrize("kind", [WandbTracker, MlflowTracker])
def test_a_missing_package_is_an_import_error_of_its_own_name(
    kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = kind.__name__.removesuffix("Tracker").lower()
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(ImportError, match=name):
        kind(Tracked("stage", "abc", tmp_path, 0))
