"""Published methods that make images of an emotion, on the run's data set, sampler and metrics.

The job itself is `uniemo_ray.jobs.generation_baselines`.
"""

from uniemo_ray.jobs.command_line import execute
from uniemo_ray.jobs.generation_baselines import main

if __name__ == "__main__":
    execute(main)
