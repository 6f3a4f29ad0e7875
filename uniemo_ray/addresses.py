"""Addresses that the user has named: a run, a model, a data set or weights, on this disk or in storage."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

_SCHEMES = "s3|s3a|s3n|gs|gcs|az|abfss?|https?|hdfs|file"
_MANGLED = re.compile(rf"(?:{_SCHEMES}):(?!//)|(?:s3|gs)//", re.IGNORECASE)
"""What `s3://bucket/x` becomes as a pathlib path, or when a character is lost on the way."""
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
_NO_PROXY = ("no_proxy", "NO_PROXY")
_OPTION = re.compile(r"(--[a-z][a-z-]*=)(~(?:/.*)?)", re.DOTALL)


def expand(address: str | Path) -> str:
    """The address with `~` as the home folder of whoever runs this.

    Raises:
        ValueError: a mangled address, or a home folder that does not exist.
    """
    text = str(address)
    if _MANGLED.match(text):
        raise ValueError(
            f"{text!r} is no address: expected s3://bucket/prefix, as text and not as a pathlib.Path, or a "
            f"local path (./{text} for a folder of this name)"
        )
    found = os.path.expanduser(text)  # unlike Path.expanduser, it leaves s3:// whole
    if re.match(r"~[^/]*(/|$)", found) and text.startswith("~/"):
        raise ValueError(f"{text!r}: this user has no home folder; give the whole path")
    return found


Address = Annotated[str, AfterValidator(expand)]
"""A setting that is an address; names of models pass as they are."""


def local_path(address: str | Path) -> Path:
    """A path on this disk.

    Raises:
        ValueError: an address in storage, or a mangled one.
    """
    text = str(address)
    if "://" in text or _MANGLED.match(text):
        raise ValueError(
            f"expected a local path, got {text!r}: this cannot be read from or written to storage"
        )
    return Path(expand(text))


def expand_arguments(arguments: Sequence[str]) -> list[str]:
    """Command line with the home folder in `~/x` and `--out=~/x`, which shells leave as they are there.

    What follows `--` is another machine's.
    """
    given = list(arguments)
    end = given.index("--") if "--" in given else len(given)
    return [_argument(text) for text in given[:end]] + given[end:]


def _argument(text: str) -> str:
    if found := _OPTION.fullmatch(text):
        return found[1] + expand(found[2])
    return expand(text) if text == "~" or text.startswith("~/") else text


def without_proxy(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that keep clients from asking a proxy for this machine, added to those of `environ`."""
    given = dict.fromkeys(filter(None, (environ.get(name) for name in _NO_PROXY)))
    return dict.fromkeys(_NO_PROXY, ",".join([*given, *LOCAL_HOSTS]))


def home_folder() -> Path | None:
    """The home folder of whoever runs this; containers run as users that have none."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def locate(run: str | Path) -> str:
    """The run folder's full address.

    Inside a submitted job a relative one lies under ~/uniemo: the job runs in a copy that Ray removes.

    Raises:
        ValueError: a mangled address, or a relative one in a job of a user without a home folder.
    """
    address = expand(run)
    if "://" in address or Path(address).is_absolute():
        return address
    if not any(part.startswith("_ray_pkg_") for part in Path.cwd().parts):
        return str(Path.cwd() / address)
    home = home_folder()
    if home is None:
        raise ValueError(
            f"{address!r} is relative, and the job's user has no home folder: give the whole path"
        )
    return str(home / "uniemo" / address)
