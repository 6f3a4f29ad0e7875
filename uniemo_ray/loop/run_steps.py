"""What every job does around its steps: the run folder, its pipeline, Ray, the lease."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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
    check_labels(config)
    run = RunFolder.open(locate(config.run), config)
    pipeline = Pipeline(run, has_room=ClusterRoom(config))
    declare(pipeline, config, table)
    connect(scratch=config.resources.scratch)
    check_pool_machines(config, [row.pool for row in table if row.pool])
    check_machines(config, is_ingested=run.store.exists("steps/ingest.json"))
    with run.locked(wait_s=config.resources.wait_for_lease_s), kept_log(run.store, epoch=run.lease.epoch):
        yield run, pipeline
