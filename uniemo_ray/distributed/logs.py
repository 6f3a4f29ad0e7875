"""What Ray says in a job's log: steps and progress are ours to tell, warnings are Ray's."""

import logging

import ray.data


def quiet_ray_data() -> None:
    """Drop Ray Data's own progress output and execution plans; its warnings and errors stay."""
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
