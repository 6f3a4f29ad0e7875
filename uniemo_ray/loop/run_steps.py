"""What every job does around its steps: the run folder, its pipeline, Ray, the lease."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from uniemo_ray.addresses import locate
from uniemo_ray.config import Config
from uniemo_ray.distributed.machines import check_machines
from uniemo_ray.distributed.pool_check import check_labels, check_pool_machines
from uniemo_ray.distributed.room import ClusterRoom
from uniemo_ray.distributed.session import connect
from uniemo_ray.loop.declare import Row, declare
from uniemo_ray.loop.run_log import kept_log
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.steps import Pipeline


@contextmanager
def open_pipeline(config: Config, table: Sequence[Row]) -> Iterator[tuple[RunFolder, Pipeline]]:
    """The run folder and its declared steps, with Ray up and the run's lease held.

    Args:
        config: of the run; its inputs were checked.
        table: the job's steps.

    Raises:
        ValueError: the folder holds something else, a pool that no machine can serve, or
            machines that lack what the run needs.
        RunLockedError: another driver works on it.
    """
    with open_steps(config, partial(declare, config=config, table=table)) as opened:
        yield opened


@contextmanager
def open_steps(
    config: Config, declare_on: Callable[[Pipeline], object], *, ingest: str = "ingest"
) -> Iterator[tuple[RunFolder, Pipeline]]:
    """The same for steps that are declared in another way.

    Args:
        config: of the run; of a study, that of any arm.
        declare_on: declares the steps on the pipeline.
        ingest: name of the step that reads the data set.

    Raises:
        ValueError: the folder holds something else, or machines of the cluster lack what the run needs.
        RunLockedError: another driver works on it.
    """
    check_labels(config)
    run = RunFolder.open(locate(config.run), config)
    pipeline = Pipeline(run, has_room=ClusterRoom(config))
    declare_on(pipeline)
    connect(scratch=config.resources.scratch)
    check_pool_machines(config, pipeline.pools)
    check_machines(config, is_ingested=pipeline.is_finished(ingest))
    with run.locked(wait_s=config.resources.wait_for_lease_s), kept_log(run.store, epoch=run.lease.epoch):
        yield run, pipeline
