"""What Ray says in a job's log: steps and progress are ours to tell, warnings are Ray's."""

import logging

import ray.data


def quiet_ray() -> None:
    """Drop Ray Data's progress output and execution plans, and Ray Train's reports; warnings stay."""
    ray.data.DataContext.get_current().enable_progress_bars = False
    quiet_train()
    logging.getLogger("ray.data").setLevel(logging.WARNING)


def quiet_train() -> None:
    """Drop what Ray Train says of every checkpoint; for the driver and for each rank."""
    logging.getLogger("ray.train").setLevel(logging.WARNING)
