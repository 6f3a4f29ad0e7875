"""The loop's first step alone: a data folder becomes checked, canonical Parquet shards in a run folder.

    ray job submit --working-dir . -- python -m uniemo_ray.jobs.ingest --config my.yaml
    uniemo submit ingest -- --set data.kind=fi --set data.root=DIR --set run=RUN

Submitting again continues: finished shards are skipped. The feedback loop on the same run folder with the
same data settings finds the step finished.
"""

from uniemo_ray.jobs.command_line import execute, read_arguments
from uniemo_ray.loop.ingested import is_ingested
from uniemo_ray.loop.preflight import check_data
from uniemo_ray.loop.run_steps import open_pipeline
from uniemo_ray.loop.step_tables import ingest_steps


def main() -> None:
    """Check, run the step, say where the shards lie."""
    config = read_arguments(__doc__)
    if not is_ingested(config):
        check_data(config.data)
    with open_pipeline(config, ingest_steps(config)) as (run, pipeline):
        (result,) = pipeline.run()
    for kind, found in result.record.outputs.items():
        print(f"{kind}: {found}")
    print(f"samples: {run.store.uri}/{result.record.artefacts}/samples")


if __name__ == "__main__":
    execute(main)
