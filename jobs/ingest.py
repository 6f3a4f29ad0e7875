"""The loop's first step alone: a data folder becomes checked, canonical Parquet shards in a run folder.

    ray job submit --working-dir . -- python jobs/ingest.py --config my.yaml
    uniemo submit jobs/ingest.py -- --set data.kind=fi --set data.root=DIR --set run=RUN

Submitting again continues: finished shards are skipped. The feedback loop on the same run folder with the
same data settings finds the step finished.
"""

import ray

from uniemo_ray.distributed.feedback_loop import declare_ingest
from uniemo_ray.distributed.logs import quiet_ray
from uniemo_ray.distributed.preflight import check_data
from uniemo_ray.job import execute, locate, read_arguments
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.steps import Pipeline


def main() -> None:
    """Check, run the step, say where the shards lie."""
    config = read_arguments(__doc__)
    check_data(config.data)
    run = RunFolder.open(locate(config.run), config)
    pipeline = Pipeline(run)
    declare_ingest(pipeline, config)
    ray.init()
    quiet_ray()
    with run.locked():
        (result,) = pipeline.run()
    for kind, found in result.record.outputs.items():
        print(f"{kind}: {found}")
    print(f"samples: {run.store.uri}/{result.record.artefacts}/samples")


if __name__ == "__main__":
    execute(main)
