"""What a submitted job gets to see: its entrypoint, its config file, and the folder that is sent with it."""

import argparse
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from uniemo_ray.addresses import home_folder
from uniemo_ray.cli.sent_folder import default_rules, rules_of

SHARED_MODULES = {"__init__", "command_line"}
"""Modules of `uniemo_ray/jobs` that are no jobs."""


def job_names() -> list[str]:
    """The jobs that the package brings, sorted."""
    found = (Path(entry.name) for entry in (files("uniemo_ray") / "jobs").iterdir())
    return sorted({path.stem for path in found if path.suffix == ".py"} - SHARED_MODULES)


def find_folder(working_dir: Path | None) -> Path:
    """The folder that is sent: the given one, else the current one.

    Raises:
        ValueError: there is no such folder, or it would be the home folder and nobody asked for that.
    """
    folder = (working_dir or Path()).resolve()
    if not folder.is_dir():
        raise ValueError(f"--working-dir {folder} is no folder")
    home = home_folder()
    if working_dir is None and folder in (home and home.resolve(), Path(folder.anchor)):
        raise ValueError(
            f"the current folder {folder} would be sent to the cluster as a whole: "
            "submit from a folder of its own, or give --working-dir"
        )
    return folder


def find_entrypoint(job: str, folder: Path) -> list[str]:
    """The command that runs a job on the cluster.

    Args:
        job: path of a script inside `folder`, or the name of one of `job_names()`.
        folder: absolute; the job starts in a copy of it.

    Raises:
        ValueError: it is neither, or the script would not be sent.
    """
    script = next((path.resolve() for path in (Path(job), folder / job) if path.is_file()), None)
    if script is not None:
        if not script.is_relative_to(folder):
            raise ValueError(f"{job} lies outside the working folder {folder}: give --working-dir")
        _check_is_sent(script, folder, f"the script {job}")
        return ["python", script.relative_to(folder).as_posix()]
    if job not in job_names():
        raise ValueError(
            f"there is no job {job!r}: expected one of {', '.join(job_names())}, "
            f"or the path of a script inside {folder}"
        )
    return ["python", "-m", f"uniemo_ray.jobs.{job}"]


def check_config(arguments: list[str], folder: Path, *, is_ours: bool) -> None:
    """Refuse a `--config` that the job would not find.

    An absolute path is left to the job, because it names a file of the cluster's machines.

    Args:
        arguments: of the job.
        folder: absolute; the job starts in a copy of it.
        is_ours: whether the job is one of the package's own. In a script, `--config` may mean anything, so
            that only YAML files are looked at.

    Raises:
        ValueError: the config is no name of a shipped one and no file that is sent.
    """
    text = _config_argument(arguments)
    if text is None or Path(text).is_absolute() or not (is_ours or text.endswith((".yaml", ".yml"))):
        return
    path = (folder / text).resolve()
    if path.is_file() and path.is_relative_to(folder):
        _check_is_sent(path, folder, f"the config file {text}")
    elif len(Path(text).parts) > 1 or Path(text).suffix:
        raise ValueError(
            f"there is no config file {text} in the working folder {folder}, which is sent with the job: "
            "give a path relative to that folder, an absolute path on the cluster, or another --working-dir"
        )
    else:
        from uniemo_ray.settings_file import preset_path

        preset_path(text)


def _config_argument(arguments: list[str]) -> str | None:
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--config")
    try:
        found, _ = parser.parse_known_args(arguments)
    except argparse.ArgumentError:
        return None  # the job itself will say what is wrong
    return None if found.config is None else str(found.config)


def _check_is_sent(path: Path, folder: Path, name: str) -> None:
    rule = next(_hiding_rules(path, folder), None)
    if rule is not None:
        raise ValueError(
            f"{name} is hidden from the job by {rule}: ignored files are not sent; "
            "change that rule or move the file"
        )


def _hiding_rules(path: Path, folder: Path) -> Iterator[str]:
    """What keeps Ray from sending `path`: an ignore file in one of the folders above it, or Ray's default."""
    above = [base for base in path.parents if base.is_relative_to(folder)]
    found = [default_rules(folder), *(rules for base in above for rules in rules_of(base))]
    return (rules.name for rules in found if rules.hide(path))
