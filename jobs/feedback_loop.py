"""The whole method: understand, correlate, train jointly, generate, score, filter, train again.

The job itself is `uniemo_ray.jobs.feedback_loop`.
"""

from uniemo_ray.jobs.command_line import execute
from uniemo_ray.jobs.feedback_loop import main

if __name__ == "__main__":
    execute(main)
