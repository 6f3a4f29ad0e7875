"""Where a run, a model or a folder lies that the user has named."""

from pathlib import Path


def locate(run: str) -> str:
    """The run folder's full address.

    Inside a submitted job a relative one lies under ~/uniemo: the job runs in a copy that Ray removes.
    """
    if "://" in run or Path(run).is_absolute():
        return run
    in_job_copy = any(part.startswith("_ray_pkg_") for part in Path.cwd().parts)
    return str((Path.home() / "uniemo" if in_job_copy else Path.cwd()) / run)
