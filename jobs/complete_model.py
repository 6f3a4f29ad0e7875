"""Make an imported checkpoint able to generate: scorers, coefficients and emotion space from a data set.

The job itself is `uniemo_ray.jobs.complete_model`.
"""

from uniemo_ray.jobs.command_line import execute
from uniemo_ray.jobs.complete_model import main

if __name__ == "__main__":
    execute(main)
