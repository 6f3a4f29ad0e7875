"""Where temporary files go on this machine."""

import os
import tempfile
from pathlib import Path

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
