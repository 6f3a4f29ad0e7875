"""The id of a request: the caller's own if it is sensible, else a new one."""

import re
import secrets
from contextvars import ContextVar

HEADER = "x-request-id"
_SENSIBLE = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}", re.ASCII)
_current: ContextVar[str] = ContextVar("request_id", default="")


def choose_request_id(sent: str | None) -> str:
    """The id that a caller has sent, or a new one if there is none or if it does not belong into a log."""
    return sent if sent is not None and _SENSIBLE.fullmatch(sent) else secrets.token_hex(16)


def set_request_id(request_id: str) -> None:
    """Make an id that of the current task's request."""
    _current.set(request_id)


def current_request_id() -> str | None:
    """The id of the current task's request, if there is one."""
    return _current.get() or None
