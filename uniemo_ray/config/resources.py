"""Settings of where a run works."""

from pathlib import Path
from typing import Annotated

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from uniemo_ray.addresses import Address
from uniemo_ray.pools import PoolsConfig, check_pool_settings
from uniemo_ray.settings_base import Settings


class WorkerRange(Settings):
    """Bounds of a number of training workers that follows the machines there are."""

    min: int = Field(1, ge=1)
    """Fewest workers that a stage trains with. Below it, the stage waits. Unit: processes. Source: ours."""
    max: int = Field(2, ge=1)
    """Most workers that a stage trains with, and what the cluster is asked for. Unit: processes. Source:
    ours."""

    @model_validator(mode="after")
    def _ordered(self) -> "WorkerRange":
        if self.min > self.max:
            raise ValueError(f"resources.workers: min {self.min} is above max {self.max}")
        return self


def _number_or_bounds(value: object) -> str:
    return "bounds" if isinstance(value, (dict, WorkerRange)) else "number"


class ResourceConfig(Settings):
    """Resources that a run asks its cluster for."""

    workers: Annotated[
        Annotated[int, Field(ge=1), Tag("number")] | Annotated[WorkerRange, Tag("bounds")],
        Discriminator(_number_or_bounds),
    ] = 2
    """Training workers, one process each: a number, or bounds such as `{min: 2, max: 8}`. With bounds a stage
    trains with the machines there are, loses workers with them and takes new ones in. Unit: processes.
    Source: ours."""
    cpus_per_worker: int = Field(1, ge=1)
    """CPUs of a training worker or an actor. Unit: CPUs. Source: ours."""
    use_gpu: bool = False
    """Give each training worker one GPU, and each actor `gpus_per_actor`. Source: ours."""
    gpus_per_actor: float = Field(1.0, gt=0, le=1)
    """Share of a GPU that an actor of a frozen model takes: with 0.25 four of them share one, each with a
    copy of its model in the GPU's memory. Actors that generate take a whole GPU. Unit: GPUs. Source: ours."""
    tf32: bool = True
    """Let the GPUs of actors round the factors of fp32 products to TF32, which has 10 bits instead of 23 and
    is several times as fast. Without it every product is exact fp32. It has no effect on CPUs. Source:
    ours."""
    actors: int = Field(2, ge=1)
    """Largest number of actors that extract features and score. Unit: actors. Source: ours."""
    min_actors: int = Field(1, ge=1)
    """Minimum size of an actor pool, also for generation. Work starts once this many actors are placed. The
    pool shrinks to it when there is less work or machines leave. Unit: actors. Source: ours."""
    memory_gb_per_actor: float = Field(1.5, gt=0)
    """Memory that an actor reserves. Ray places no more actors on a machine than its memory allows. Unit: GB.
    Source: ours."""
    cache_gb: float | None = Field(None, gt=0)
    """Size of the training images that each machine keeps on its disk, in the folder for temporary files.
    Those that nobody has used for the longest time make room for others. None means half of the space that is
    free. Unit: GB. Source: ours."""
    price_per_node_hour: float = Field(0.0, ge=0)
    """Price of one machine for one hour, in any currency. When it is set, the progress line shows the cost so
    far. Unit: currency per hour. Source: ours."""
    scratch: Address | None = None
    """Folder for temporary files on every machine, such as models that are copied there, and checkpoints
    before they are uploaded; it is made where it is missing. An absolute path; null: the system's temporary
    folder. Ray's own files, and what it spills, lie where `ray start --temp-dir` says. Source: ours."""
    max_failures: int = Field(2, ge=0)
    """How often a training stage restarts from its last checkpoint after a worker failed on a machine that is
    still there. Unit: restarts. Source: ours."""
    max_preemptions: int | None = Field(None, ge=0)
    """How often a training stage goes on from its last checkpoint after a machine was taken away, as spot
    machines are. None sets no limit. A stage that is preempted five times without a new checkpoint ends in
    any case. Unit: restarts. Source: ours."""
    wait_for_lease_s: float = Field(0.0, ge=0)
    """How long a job waits for another driver of the same run to end, such as the one that an operator is
    just replacing. The jobs' option --wait-for-lease sets it. Unit: seconds. Source: ours."""
    parallel_steps: int = Field(4, ge=1)
    """Largest number of steps that run side by side. A step starts beside others only if the cluster has room
    for all of them. Unit: steps. Source: ours."""
    pools: PoolsConfig = PoolsConfig()
    """Which machines do which part of the run."""

    @model_validator(mode="after")
    def _pools_fit(self) -> "ResourceConfig":
        check_pool_settings(self)
        return self

    @property
    def most_workers(self) -> int:
        """Workers of a stage at most."""
        return self.workers if isinstance(self.workers, int) else self.workers.max

    @property
    def least_workers(self) -> int:
        """Workers of a stage at least."""
        return self.workers if isinstance(self.workers, int) else self.workers.min

    @field_validator("scratch")
    @classmethod
    def _is_absolute(cls, folder: str | None) -> str | None:
        if folder is not None and not Path(folder).is_absolute():
            raise ValueError(f"expected an absolute path of every machine, got {folder!r}")
        return folder
