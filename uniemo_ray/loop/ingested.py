"""Whether a run still needs the folder of its data set."""

from uniemo_ray.addresses import locate
from uniemo_ray.config import Config
from uniemo_ray.loop.declare import declare
from uniemo_ray.loop.step_tables import ingest_steps
from uniemo_ray.store.run import RunFolder, holds_run
from uniemo_ray.store.steps import Pipeline


def is_ingested(config: Config) -> bool:
    """Whether the run has finished its ingest with these settings, so that nobody reads the folder again.

    Raises:
        ValueError: the run folder holds something else.
        StoreError: storage is not usable.
    """
    address = locate(config.run)
    if not holds_run(address):
        return False
    pipeline = Pipeline(RunFolder.open(address, config))
    declare(pipeline, config, ingest_steps(config))
    return pipeline.is_finished("ingest")
