"""A driver's connection to its cluster."""

import logging

import ray

from uniemo_ray.distributed.logs import quiet_ray


def connect() -> None:
    """Connect to the cluster of this job, or start Ray on this machine where there is none."""
    ray.init(logging_level=logging.WARNING)
    quiet_ray()
