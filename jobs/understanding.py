"""Understanding alone, on any of the data sets: train stage 1 and judge it, or judge a finished model.

The job itself is `uniemo_ray.jobs.understanding`.
"""

from uniemo_ray.jobs.command_line import execute
from uniemo_ray.jobs.understanding import main

if __name__ == "__main__":
    execute(main)
