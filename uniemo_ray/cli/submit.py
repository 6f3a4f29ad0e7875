"""`uniemo submit`: `ray job submit` with the tedious parts filled in."""

import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from uniemo_ray.cli.cluster import Cluster, find_cluster
from uniemo_ray.cli.sent import check_config, find_entrypoint, find_folder, job_names
from uniemo_ray.cli.sent_folder import check_folder

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
    runtime_env: Annotated[
        Path | None,
        typer.Option(help="Runtime environment of the job: a YAML file such as cluster/runtime_env.yaml."),
    ] = None,
    wait: Annotated[bool, typer.Option(help="Follow the log until the job ends.")] = True,
) -> None:
    """Run a job on a Ray cluster and follow its log.

    Ends with the job's exit code. Submitting the feedback loop again resumes it: finished steps are skipped.
    The equivalent `ray job submit` command is printed.

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
    environment = {**_read_runtime_env(runtime_env), "working_dir": str(folder)}
    check_folder(folder, excludes=environment.get("excludes") or ())
    cluster = find_cluster(address, folder=Path.cwd(), environ=os.environ)
    submission = next_submission_id(name or Path(job).stem, _submissions(cluster))
    options = ["--submission-id", submission, "--working-dir", str(folder)]
    options += ["--runtime-env", str(runtime_env)] if runtime_env else []
    options += [] if wait else ["--no-wait"]
    command = shlex.join([*entrypoint, *given])
    typer.echo(f"ray job submit {shlex.join(options)} -- {command}", err=True)
    raise typer.Exit(_run(cluster, command, submission, environment, wait=wait))


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


def _read_runtime_env(path: Path | None) -> dict[str, Any]:
    """What the file asks for.

    Raises:
        ValueError: it is no mapping.
    """
    found = {} if path is None else yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold `key: value` lines, as cluster/runtime_env.yaml does")
    return found


def _run(
    cluster: Cluster, entrypoint: str, submission: str, environment: dict[str, Any], *, wait: bool
) -> int:
    """Submit, follow the log, say how the job ended; returns its exit code."""
    os.environ.update(cluster.environment())  # Ray's client reads the token there
    from uniemo_ray.distributed.submission import Jobs  # seconds, and Ray: only when there is a cluster

    jobs = Jobs(cluster.address)
    jobs.submit(entrypoint, submission=submission, runtime_env=environment)
    if not wait:
        typer.echo(f"job {submission} submitted; its log: ray job logs --follow {submission}", err=True)
        return 0
    try:
        jobs.follow(submission, typer.echo)
    except KeyboardInterrupt:
        typer.echo(f"the job goes on; stop it with: ray job stop {submission}", err=True)
        return STOPPED_CODE
    job = cluster.get(f"/api/jobs/{submission}")
    typer.echo(ending(job), err=True)
    return exit_code(job)


def ending(job: dict[str, Any]) -> str:
    """How a job ended, in one line, or in Ray's words where its command never ran."""
    name, status, code = (job.get(key) for key in ("submission_id", "status", "driver_exit_code"))
    if status == "FAILED" and not code:
        return f"job {name} failed: {job.get('message')}"
    reason = f" with exit code {code}" if status == "FAILED" else ""
    return f"job {name} {str(status).lower()}{reason}"


def exit_code(job: dict[str, Any]) -> int:
    """Exit code of a followed job, from its record in the Jobs API."""
    code = job.get("driver_exit_code")
    if job.get("status") == "SUCCEEDED":
        return 0
    if job.get("status") == "STOPPED":
        return STOPPED_CODE
    return code if isinstance(code, int) and 0 < code < 256 else 1
