"""Where temporary files go on this machine."""

import os
import tempfile
from pathlib import Path

TMPDIR = "TMPDIR"
"""What Python and most libraries read."""
SCRATCH = "UNIEMO_SCRATCH"
"""Environment variable that names the folder; a job sets it from `resources.scratch`."""


def scratch_folder() -> Path:
    """The folder for temporary files, made if it is not there; the system's where none is named.

    Raises:
        ValueError: the named folder cannot be made.
    """
    named = os.environ.get(SCRATCH)
    if not named:
        return Path(tempfile.gettempdir())
    try:
        Path(named).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"the scratch folder {named} cannot be made ({error.strerror}): set resources.scratch to a "
            f"folder that every machine can write"
        ) from None
    return Path(named)


def own_folder(name: str, folder: Path | None = None) -> Path:
    """This user's folder of a name below the scratch folder, or another one; made if it is not there.

    Raises:
        ValueError: another user has made it, who could put anything there.
    """
    found = folder or scratch_folder() / f"{name}-{os.getuid()}"
    found.mkdir(mode=0o700, parents=True, exist_ok=True)
    if found.stat().st_uid != os.getuid():
        raise ValueError(
            f"{found} belongs to another user: remove it, or set resources.scratch to a folder of your own"
        )
    return found


def use_scratch(folder: str) -> Path:
    """Make this folder the place of everything temporary in this process and in those that it starts.

    Raises:
        ValueError: it cannot be made.
    """
    os.environ[SCRATCH] = folder
    found = scratch_folder()
    os.environ[TMPDIR] = folder
    tempfile.tempdir = None  # chosen once and remembered: before now, the system's
    return found


def prepare_worker() -> None:
    """What a worker of a job with `resources.scratch` does first: Python ignores a TMPDIR that is missing."""
    if os.environ.get(SCRATCH):
        use_scratch(os.environ[SCRATCH])
