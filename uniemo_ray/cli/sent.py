"""What a submitted job gets to see: its entrypoint, its config file, and the folder that is sent with it."""

import argparse
import os
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path

SHARED_MODULES = {"__init__", "command_line"}
"""Modules of `uniemo_ray/jobs` that are no jobs."""
NEVER_SENT = (".git", ".venv", "venv", "__pycache__")
"""Ray's own default, which `RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES` replaces."""


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
    if working_dir is None and folder in (Path.home().resolve(), Path(folder.anchor)):
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
    given = os.environ.get("RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES")
    defaults = NEVER_SENT if given is None else [name.strip() for name in given.split(",") if name.strip()]
    if _matches(defaults, path, folder):
        yield "Ray's default, which leaves out " + ", ".join(defaults)
    skips_gitignore = os.environ.get("RAY_RUNTIME_ENV_IGNORE_GITIGNORE") == "1"
    for base in [above for above in path.parents if above.is_relative_to(folder)]:
        for name in (".rayignore",) if skips_gitignore else (".gitignore", ".rayignore"):
            file = base / name
            if file.is_file() and _matches(file.read_text().splitlines(), path, base):
                yield str(file)


def _matches(rules: Iterable[str], path: Path, base: Path) -> bool:
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec.from_lines(rules).match_file(path.relative_to(base).as_posix())
