"""What the driver tells every rank of a training stage; light, because Ray's controller unpickles it too."""

from dataclasses import dataclass
from typing import Any

from pyarrow import fs

from uniemo_ray.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Work:
    """What the driver tells every rank.

    Attributes:
        name: Of the stage, for logs.
        build: `module:function` that makes `StageParts` from `settings`. A name, so that only workers
            import what it needs.
        settings: Plain JSON for `build`.
        train: The stage's settings.
        seed: Base of all randomness.
        steps_per_epoch: By the number of rows.
        threads: CPU threads of a worker.
        shards: Data sets there are: `train`, maybe `rest` (what the resumed epoch has left) and `val`.
        resume_step: Step of the checkpoint that the driver has prepared the data for.
        filesystem: Of the storage.
        records: Folder for metrics there.
    """

    name: str
    build: str
    settings: dict[str, Any]
    train: TrainConfig
    seed: int
    steps_per_epoch: int
    threads: int
    shards: frozenset[str]
    resume_step: int
    filesystem: fs.FileSystem
    records: str

    @property
    def total_steps(self) -> int:
        """Steps of the whole stage."""
        return self.steps_per_epoch * self.train.epochs


def run_worker(values: dict[str, Any]) -> None:
    """Train this rank's share of a stage; the train function of Ray's `TorchTrainer`.

    Args:
        values: `{"work": Work}`.
    """
    from uniemo_ray.distributed.training.rank import train_rank  # seconds of imports, for ranks alone

    train_rank(values["work"])
