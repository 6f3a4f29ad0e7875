"""The folder that is sent with a job: what Ray leaves out of it, and what it cannot send."""

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from uniemo_ray.text import escaped, is_utf8

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

NEVER_SENT = (".git", ".venv", "venv", "__pycache__")
"""Ray's own default, which `RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES` replaces."""
MOST_BYTES = 100 << 20
"""Larger bodies are refused by Ray's dashboard; files are sent as they are, not compressed."""
_COUNTED = 8
"""How many times as much as a cluster takes is counted, to name the largest folders."""
_NAMED = 3
"""Folders and files that are named when all are too large together."""
_LEAVE_OUT = "name it in a .rayignore file"


class Rules(NamedTuple):
    """What one place says about files that are left out."""

    name: str
    """Where the rules stand, for a message."""
    base: Path
    """Folder that they are relative to."""
    spec: "GitIgnoreSpec"

    def hide(self, path: Path, *, is_folder: bool = False) -> bool:
        """Whether they leave out a path below `base`."""
        ending = "/" if is_folder else ""
        return bool(self.spec.match_file(path.relative_to(self.base).as_posix() + ending))


def default_rules(folder: Path) -> Rules:
    """What Ray leaves out everywhere."""
    given = os.environ.get("RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES")
    names = NEVER_SENT if given is None else [name.strip() for name in given.split(",") if name.strip()]
    return _rules(f"Ray's default, which leaves out {', '.join(names)}", folder, names)


def rules_of(base: Path) -> Iterator[Rules]:
    """The rules of the ignore files in one folder.

    Raises:
        ValueError: one of them is no text.
    """
    skips_gitignore = os.environ.get("RAY_RUNTIME_ENV_IGNORE_GITIGNORE") == "1"
    for name in (".rayignore",) if skips_gitignore else (".gitignore", ".rayignore"):
        file = base / name
        if file.is_file():
            try:
                lines = file.read_text(encoding="utf-8").splitlines()
            except UnicodeDecodeError:
                raise ValueError(f"{file} is no text in UTF-8, and Ray reads it: save it as UTF-8") from None
            yield _rules(str(file), base, lines)


def is_sent(path: Path, folder: Path) -> bool:
    """Whether a folder that is sent takes another one inside it along."""
    if path == folder or not path.is_relative_to(folder):
        return path == folder
    rules = [default_rules(folder)]
    for base in (parent for parent in reversed([path, *path.parents]) if parent.is_relative_to(folder)):
        if base != folder and any(rule.hide(base, is_folder=True) for rule in rules):
            return False
        rules += rules_of(base)
    return True


def check_folder(folder: Path, *, excludes: Iterable[str] = ()) -> None:
    """Refuse a folder that Ray would never finish sending, or that a cluster would not take.

    Args:
        folder: absolute.
        excludes: of the runtime environment.

    Raises:
        ValueError: it is too large, links lead in a circle, or a file in it cannot be sent.
    """
    total, parts = 0, Counter[str]()
    around = {os.path.realpath(path) for path in (folder, *folder.parents)}
    rules = [default_rules(folder), _rules("excludes", folder, excludes)]
    for path in _files(folder, rules, around):
        size = _size(path)
        total += size
        parts[path.relative_to(folder).parts[0]] += size
        if total > _COUNTED * MOST_BYTES:
            break  # a data set has millions of files
    if total > MOST_BYTES:
        named = ", ".join(f"{name} {size >> 20}" for name, size in parts.most_common(_NAMED))
        raise ValueError(
            f"the working folder {folder} is sent with the job and has more than {MOST_BYTES >> 20} MiB, "
            f"which a cluster takes (largest, in MiB: {named}): submit from a smaller folder, or name what "
            f"the job does not need in a .rayignore file"
        )


def _files(folder: Path, rules: list[Rules], around: set[str]) -> Iterator[Path]:
    """Files that are sent; links are followed, as Ray does.

    Args:
        folder: where to look.
        rules: of the folders above.
        around: real paths of all folders above.
    """
    rules = [*rules, *rules_of(folder)]
    for path in sorted(folder.iterdir()):
        is_folder = path.is_dir()
        if any(rule.hide(path, is_folder=is_folder) for rule in rules):
            continue
        if not is_utf8(path.name):
            raise ValueError(
                f"{escaped(str(path))} cannot be sent with the job, as its name is no UTF-8: rename it"
            )
        if not is_folder:
            yield path
            continue
        real = os.path.realpath(path)
        if real in around:
            raise ValueError(
                f"{path} cannot be sent with the job, as it is a link to a folder that holds it: {_LEAVE_OUT}"
            )
        yield from _files(path, rules, {*around, real})


def _size(path: Path) -> int:
    """Bytes that are sent of a file."""
    try:
        status = path.stat()
    except OSError:
        return 0  # a link that leads nowhere is left out
    if stat.S_ISSOCK(status.st_mode):
        return 0  # left out as well
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(
            f"{path} cannot be sent with the job, as it is a pipe or a device, which never ends: {_LEAVE_OUT}"
        )
    if not os.access(path, os.R_OK):
        raise ValueError(f"{path} cannot be sent with the job, as it is not readable: {_LEAVE_OUT}")
    return status.st_size


def _rules(name: str, base: Path, lines: Iterable[str]) -> Rules:
    from pathspec import GitIgnoreSpec

    return Rules(name, base, GitIgnoreSpec.from_lines(lines))
