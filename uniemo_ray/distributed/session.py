"""A driver's connection to its cluster."""

import logging
from typing import Any

import ray

from uniemo_ray.distributed.logs import quiet_ray
from uniemo_ray.scratch import SCRATCH, TMPDIR, use_scratch


def connect(*, scratch: str | None = None) -> None:
    """Connect to the cluster of this job, or start Ray on this machine where there is none.

    Args:
        scratch: folder for temporary files on every machine, `resources.scratch`.

    Raises:
        ValueError: the folder cannot be made here.
    """
    ray.init(logging_level=logging.WARNING, runtime_env=worker_environment(scratch))
    quiet_ray()
    if scratch is not None:
        use_scratch(scratch)  # after Ray has started: its sockets need short paths


def worker_environment(scratch: str | None) -> dict[str, Any] | None:
    """What all workers of a job get; None where that is nothing."""
    if scratch is None:
        return None
    return {
        "env_vars": {SCRATCH: scratch, TMPDIR: scratch},
        "worker_process_setup_hook": "uniemo_ray.scratch.prepare_worker",
    }
