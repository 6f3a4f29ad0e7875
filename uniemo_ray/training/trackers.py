"""Where metrics go beside `metrics.jsonl`: TensorBoard, Weights & Biases, MLflow. Rank 0 alone tracks."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

PROJECT = "uniemo_ray"
"""Project of Weights & Biases, experiment of MLflow, unless their own variables name another."""


class Tracker(Protocol):
    """Takes numbers as they come."""

    def write(self, values: Mapping[str, float], *, step: int) -> None:
        """Add values by name, such as `step/loss`, at a training step."""

    def flush(self) -> None:
        """Make everything visible to readers."""

    def close(self) -> None:
        """End; nothing is written afterwards."""


class Tracked(NamedTuple):
    """What is tracked.

    Attributes:
        name: Of the stage.
        id: The same after each restart, and no other stage's.
        folder: Local folder for files.
        step: That training goes on from.
    """

    name: str
    id: str
    folder: Path
    step: int


class TensorBoardTracker:
    """Event files in the folder; those of steps after a restart's first replace what was there."""

    def __init__(self, tracked: Tracked) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow import, needed by rank 0 only

        tracked.folder.mkdir(parents=True, exist_ok=True)
        self._writer = SummaryWriter(str(tracked.folder), purge_step=tracked.step or None, flush_secs=10)

    def write(self, values: Mapping[str, float], *, step: int) -> None:
        """One curve for each name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Write what is buffered."""
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class WandbTracker:
    """A run of Weights & Biases, which goes on after a restart.

    Without `WANDB_API_KEY` or `WANDB_MODE` it is offline: files for `wandb sync` lie in the folder.
    """

    def __init__(self, tracked: Tracked) -> None:
        import wandb

        tracked.folder.mkdir(parents=True, exist_ok=True)
        default = "online" if os.environ.get("WANDB_API_KEY") else "offline"
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=tracked.name,
            id=tracked.id,
            dir=str(tracked.folder),
            mode=os.environ.get("WANDB_MODE", default),
            resume="allow",
        )

    def write(self, values: Mapping[str, float], *, step: int) -> None:
        """Add to the history at the step."""
        self._run.log(dict(values), step=step)

    def flush(self) -> None:
        """Weights & Biases sends by itself."""

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class MlflowTracker:
    """A run of MLflow, found again by its id after a restart.

    Without `MLFLOW_TRACKING_URI` it is a database `mlflow.db` in the folder.
    """

    def __init__(self, tracked: Tracked) -> None:
        from mlflow import MlflowClient

        tracked.folder.mkdir(parents=True, exist_ok=True)
        address = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{tracked.folder}/mlflow.db"
        self._client: Any = MlflowClient(address)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        runs = self._client.search_runs([experiment], f"tags.uniemo_id = '{tracked.id}'")
        tags = {"uniemo_id": tracked.id}
        run = runs[0] if runs else self._client.create_run(experiment, run_name=tracked.name, tags=tags)
        self._run: str = run.info.run_id
        self._client.update_run(self._run, status="RUNNING")
        self._waiting: list[Any] = []

    def write(self, values: Mapping[str, float], *, step: int) -> None:
        """Collect; a request for each step would take longer than the step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [Metric(name, value, now, step) for name, value in values.items()]
        if len(self._waiting) >= 500:
            self.flush()

    def flush(self) -> None:
        """Send what was collected."""
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), 1000):  # as many as a request may hold
            self._client.log_batch(self._run, metrics=waiting[start : start + 1000])

    def close(self) -> None:
        """Send the rest and end the run."""
        self.flush()
        self._client.set_terminated(self._run)


TRACKERS: dict[str, type[TensorBoardTracker] | type[WandbTracker] | type[MlflowTracker]] = {
    "tensorboard": TensorBoardTracker,
    "wandb": WandbTracker,
    "mlflow": MlflowTracker,
}
"""By the names of the setting `tracking`."""


def make_trackers(names: Sequence[str], tracked: Tracked) -> list[Tracker]:
    """The trackers that the setting `tracking` names."""
    return [TRACKERS[name](tracked) for name in names]
