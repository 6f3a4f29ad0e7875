"""What the driver tells every rank of a training stage; light, because Ray's controller unpickles it too."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyarrow import fs

from uniemo_ray.training.stage_settings import StageSettings

if TYPE_CHECKING:
    from uniemo_ray.training.loading.pieces import ShardRows
    from uniemo_ray.training.parts import StageBuilder


@dataclass(frozen=True, kw_only=True)
class Work:
    """What the driver tells every rank.

    Attributes:
        name: Of the stage, for logs.
        settings: What the stage is built from.
        build: Builds something else than `build_stage` does, for tests. Only ranks import `build_stage`.
        seed: Base of all randomness.
        steps_per_epoch: By the number of rows.
        threads: CPU threads of a worker.
        data: Training rows.
        val: Validation rows.
        filesystem: Of the storage.
        records: Folder for metrics there.
        machines: Folder for the notes which machine each rank runs on.
    """

    name: str
    settings: StageSettings
    build: "StageBuilder | None" = None
    seed: int
    steps_per_epoch: int
    threads: int
    filesystem: fs.FileSystem
    records: str
    machines: str
    data: "ShardRows"
    val: "ShardRows | None" = None

    @property
    def cache_bytes(self) -> int | None:
        """Budget of each machine's cache of training images; None for a share of its free space."""
        budget = self.settings.config.resources.cache_gb
        return None if budget is None else round(budget * 1e9)

    @property
    def total_steps(self) -> int:
        """Steps of the whole stage."""
        return self.steps_per_epoch * self.settings.train.epochs
