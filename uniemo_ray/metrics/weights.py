"""Published weight files that the user may have put into `evaluation.weights_dir`. Never downloaded."""

from pathlib import Path
from pickle import UnpicklingError

from torch import Tensor

from uniemo_ray.foreign_files import stand_in_at
from uniemo_ray.models.pickled import read_pickled
from uniemo_ray.store.fingerprint import file_sha256
from uniemo_ray.text import one_line


def find_weights(weights_dir: str | Path | None, pattern: str, *, metric: str) -> Path:
    """The one file in `weights_dir` that matches `pattern`.

    Raises:
        ValueError: when the folder is not set or holds no such file, or more than one.
    """
    hint = f"{metric} needs {pattern} in evaluation.weights_dir"
    if weights_dir is None:
        raise ValueError(f"{hint}, which is not set: set it, or use the metric of another name")
    found = sorted(Path(weights_dir).glob(pattern))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "no such file"
        raise ValueError(f"{hint}, found {names} in {weights_dir}: put exactly one there")
    return found[0]


def has_weights(weights_dir: str | Path | None, pattern: str) -> bool:
    """Whether the user has put such a file there: metrics that need it are measured only then."""
    return weights_dir is not None and any(Path(weights_dir).glob(pattern))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict whose file name ends in the first 8 hex digits of its sha256, as published.

    Raises:
        ValueError: when the digest does not match, or the file holds anything but tensors.
    """
    if found := stand_in_at(path):
        raise ValueError(f"{path} is {found}")
    wanted = path.stem.rpartition("-")[2]
    digest = file_sha256(path)
    if len(wanted) != 8 or not digest.startswith(wanted):
        raise ValueError(f"{path} is damaged: its sha256 starts with {digest[:8]}, expected {wanted}")
    return tensors_of(read_checkpoint(path), path)


def read_checkpoint(path: Path) -> object:
    """What a published file holds; nothing in it is run.

    Raises:
        ValueError: when it is damaged, or holds more than tensors.
    """
    try:
        return read_pickled(path)
    except (RuntimeError, EOFError, OSError, LookupError, UnpicklingError) as error:
        reason = one_line(error)[:200]
        raise ValueError(f"{path} is damaged, or holds more than tensors ({reason})") from None


def tensors_of(state: object, path: Path) -> dict[str, Tensor]:
    """The content of a file as a state dict; raises ValueError when it is none."""
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no plain state dict of tensors")
    return state
