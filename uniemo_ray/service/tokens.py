"""Bearer tokens, stored as hashes in a file that may change while the service runs.

python -m uniemo_ray.service.tokens add NAME --file tokens.json      prints the token once
python -m uniemo_ray.service.tokens list --file tokens.json
python -m uniemo_ray.service.tokens revoke NAME --file tokens.json   takes effect within seconds
"""

import argparse
import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field, ValidationError

from uniemo_ray.settings_base import Settings
from uniemo_ray.store.atomic import write_atomically

logger = logging.getLogger(__name__)

PREFIX = "uniemo_"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_CHECK_INTERVAL_S = 1.0
RESERVED = ("anyone", "local", "unknown")
"""Names of callers without a token, whose limits and generations nobody else may share."""


class Token(Settings):
    """One token without its secret."""

    name: str
    """Name of its owner, which appears in logs."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Hash of the token. A plain hash is enough: a token has 256 random bits, which nobody can guess."""
    created_at: str
    """Time of creation in UTC."""


class TokenList(Settings):
    """Content of a token file."""

    version: int = Field(1, ge=1, le=1)
    """Version of the file format."""
    tokens: tuple[Token, ...] = ()
    """All valid tokens."""


class TokenFile:
    """Finds the name of a token. The file is read again when it has changed."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the file.

        Raises:
            ValueError: the file is missing or is not a token file.
        """
        self.path, self.clock = path, clock
        self._stamp = _stamp(path)
        self._names = {token.sha256: token.name for token in read_tokens(path).tokens}
        self._checked_at = clock()

    def name_of(self, token: str) -> str | None:
        """The name of a token; None if it is not valid."""
        if self.clock() - self._checked_at >= _CHECK_INTERVAL_S:
            self._read_if_changed()
        return self._names.get(_digest(token))

    def _read_if_changed(self) -> None:
        self._checked_at = self.clock()
        stamp = _stamp(self.path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._names = {token.sha256: token.name for token in read_tokens(self.path).tokens}
        except ValueError as error:
            self._names = {}  # the change may have revoked a token, so no token is accepted
            logger.error("%s: no token is valid until the file is repaired", error)


def read_tokens(path: Path) -> TokenList:
    """Read a token file. Raises ValueError, without quoting the file, if it is missing or damaged."""
    try:
        return TokenList.model_validate(json.loads(path.read_bytes()))
    except FileNotFoundError:
        raise ValueError(
            f"token file {path} does not exist: "
            f"create one with python -m uniemo_ray.service.tokens add NAME --file {path}"
        ) from None
    except (OSError, ValueError) as error:
        kind = "not valid" if isinstance(error, ValidationError) else type(error).__name__
        raise ValueError(f"token file {path} cannot be read ({kind})") from None


def add_token(path: Path, name: str) -> str:
    """Add a token to a file, which is created if missing. Returns the token; the file holds its hash."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"expected a name of letters, digits, '.', '_' and '-', got {name!r}")
    if name in RESERVED:
        raise ValueError(f"the name {name!r} stands for callers without a token: choose another name")
    secret = PREFIX + secrets.token_urlsafe(32)
    created_at = datetime.now(UTC).isoformat(timespec="seconds")
    with _changing(path):
        tokens = read_tokens(path).tokens if path.exists() else ()
        if any(token.name == name for token in tokens):
            raise ValueError(
                f"{path} already has a token named {name!r}: revoke it first, or choose another name"
            )
        _write(path, (*tokens, Token(name=name, sha256=_digest(secret), created_at=created_at)))
    return secret


def revoke_token(path: Path, name: str) -> None:
    """Remove a token from a file. Raises ValueError if the file does not have it."""
    with _changing(path):
        tokens = read_tokens(path).tokens
        kept = tuple(token for token in tokens if token.name != name)
        if len(kept) == len(tokens):
            raise ValueError(f"{path} has no token named {name!r}")
        _write(path, kept)


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    """Lock a file for a change, so that two changes at a time cannot undo each other."""
    if not path.parent.is_dir():
        yield  # reading or writing reports the error
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _write(path: Path, tokens: tuple[Token, ...]) -> None:
    with write_atomically(path) as file:
        file.write(TokenList(tokens=tokens).model_dump_json(indent=2).encode() + b"\n")
    path.chmod(0o600)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Values that change when a file is replaced or edited; None if it is missing."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def main(arguments: list[str] | None = None) -> int:
    """Run a command; errors are one line on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m uniemo_ray.service.tokens",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=__doc__,
    )
    parser.add_argument("action", choices=["add", "list", "revoke"])
    parser.add_argument("name", nargs="?", default="")
    parser.add_argument("--file", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        if options.action == "add":
            print(add_token(options.file, options.name))
        elif options.action == "revoke":
            revoke_token(options.file, options.name)
        else:
            for token in read_tokens(options.file).tokens:
                print(f"{token.name}  {token.created_at}")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
