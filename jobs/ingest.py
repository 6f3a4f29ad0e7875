"""The loop's first step alone: a data folder becomes checked, canonical Parquet shards in a run folder.

The job itself is `uniemo_ray.jobs.ingest`.
"""

from uniemo_ray.jobs.command_line import execute
from uniemo_ray.jobs.ingest import main

if __name__ == "__main__":
    execute(main)
