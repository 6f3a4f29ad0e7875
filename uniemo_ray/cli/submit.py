"""`uniemo submit`: `ray job submit` with the tedious parts filled in."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from uniemo_ray.cli.cluster import Cluster, find_cluster
from uniemo_ray.cli.sent import check_config, find_entrypoint, find_folder, job_names

STOPPED_CODE = 130


def submit(
    job: Annotated[
        str,
        typer.Argument(help=f"One of {', '.join(job_names())}; or a script inside the working folder."),
    ],
    arguments: Annotated[list[str] | None, typer.Argument(help="After --: arguments of the job.")] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Dashboard of the cluster (default: RAY_ADDRESS, a local head, port 8265)."),
    ] = None,
    working_dir: Annotated[
        Path | None, typer.Option(help="Folder that is sent to the cluster (default: the current one).")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the submission (default: the job's).")] = None,
    runtime_env: Annotated[Path | None, typer.Option(help="As cluster/runtime_env.yaml.")] = None,
    wait: Annotated[bool, typer.Option(help="Follow the log until the job ends.")] = True,
) -> None:
    """Run a job on a Ray cluster and follow its log.

    Ends with the job's exit code. Submitting the feedback loop again resumes it: finished steps are skipped.
    What runs underneath is `ray job submit`, and is printed.

    The working folder is sent to the cluster, without what its .gitignore and .rayignore name, and the job
    starts in that copy. In a checkout the code travels with it. Elsewhere the cluster's own uniemo_ray runs,
    and the folder matters for config files: submit from a small folder that holds yours. A relative `run`
    lies under ~/uniemo on the cluster.

    \b
    Examples:
      uniemo submit feedback_loop -- --config demo
      uniemo submit feedback_loop -- --config my.yaml --set run=/data/runs/mine
      uniemo submit --address https://ray.example.org --runtime-env cluster/runtime_env.yaml \\
          jobs/feedback_loop.py -- --config my.yaml --set run=s3://bucket/my-run
    """
    given = list(arguments or [])
    given = given[1:] if given[:1] == ["--"] else given  # the one that separates, not one of the job's own
    folder = find_folder(working_dir)
    entrypoint = find_entrypoint(job, folder)
    check_config(given, folder, is_ours=entrypoint[1] == "-m")
    cluster = find_cluster(address, folder=Path.cwd(), environ=os.environ)
    submission = next_submission_id(name or Path(job).stem, _submissions(cluster))
    options = ["--submission-id", submission, "--working-dir", str(folder)]
    options += ["--runtime-env", str(runtime_env)] if runtime_env else []
    options += [] if wait else ["--no-wait"]
    command = ["job", "submit", *options, "--", *entrypoint, *given]
    typer.echo(f"ray {shlex.join(command)}", err=True)
    raise typer.Exit(_follow(cluster, command, submission, wait=wait))


def next_submission_id(name: str, taken: Iterable[str]) -> str:
    """`name-N` with the first N after all taken ones: an id cannot be used twice."""
    numbers = [
        int(match[1])
        for match in (re.fullmatch(rf"{re.escape(name)}-(\d+)", used) for used in taken)
        if match
    ]
    return f"{name}-{max(numbers, default=0) + 1}"


def _submissions(cluster: Cluster) -> list[str]:
    return [str(job["submission_id"]) for job in cluster.get("/api/jobs/") if job.get("submission_id")]


def _follow(cluster: Cluster, command: list[str], submission: str, *, wait: bool) -> int:
    """Run `ray COMMAND`; the job's own exit code where Ray's client knows only 0 and 1."""
    ray = [sys.executable, "-m", "ray.scripts.scripts", *command]
    try:
        code = subprocess.run(ray, env={**os.environ, **cluster.environment()}, check=False).returncode
    except KeyboardInterrupt:
        typer.echo(f"the job goes on; stop it with: ray job stop {submission}", err=True)
        return STOPPED_CODE
    return exit_code(cluster.get(f"/api/jobs/{submission}"), client_code=code) if wait else code


def exit_code(job: dict[str, object], *, client_code: int) -> int:
    """Exit code of a followed job, from its record in the Jobs API.

    Ray's client ends with 0 for a stopped job, and with 1 for any failure.
    """
    code = job.get("driver_exit_code")
    if job.get("status") == "SUCCEEDED":
        return client_code
    if job.get("status") == "STOPPED":
        return STOPPED_CODE
    return code if isinstance(code, int) and 0 < code < 256 else client_code or 1
