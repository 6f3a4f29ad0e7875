"""Baselines of understanding, in the same harness as UniEmo: the same splits, test images and metrics.

The job itself is `uniemo_ray.jobs.baselines`.
"""

from uniemo_ray.jobs.baselines import main
from uniemo_ray.jobs.command_line import execute

if __name__ == "__main__":
    execute(main)
