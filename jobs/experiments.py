"""A study: arms that differ in named settings, with paired seeds, intervals, and a verdict on every claim.

The job itself is `uniemo_ray.jobs.experiments`.
"""

from uniemo_ray.jobs.command_line import execute
from uniemo_ray.jobs.experiments import main

if __name__ == "__main__":
    execute(main)
