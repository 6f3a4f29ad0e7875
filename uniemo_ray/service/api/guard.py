"""Who gets in: this machine's own users without a token, everybody else with one."""

import contextlib
import ipaddress
import logging
import time
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uniemo_ray.service.api.metrics import Metrics
from uniemo_ray.service.api.problems import ProblemError, inner_error
from uniemo_ray.service.api.rate_limiter import RateLimiter
from uniemo_ray.service.tokens import TokenFile

logger = logging.getLogger(__name__)

HEALTH_PATHS = frozenset({"/healthz", "/readyz"})
OPEN_PATHS = HEALTH_PATHS | {"/", "/docs", "/openapi.json", "/favicon.ico"}
OPEN_FOLDER = "/page/"
LOCAL = "local"
"""Caller without a token."""
UNKNOWN = "unknown"
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        b"connect-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)


class Guard:
    """ASGI middleware: token, origin, rates; before a byte of the body is read."""

    def __init__(
        self, app: ASGIApp, *, tokens: TokenFile | None, rate_limiter: RateLimiter, metrics: Metrics
    ) -> None:
        self.app, self.tokens, self.rate_limiter, self.metrics = app, tokens, rate_limiter, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer why not."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)  # startup and shutdown; there are no websockets
            return
        started, status = time.perf_counter(), 0

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_missing(message["headers"])]
            await send(message)

        caller = UNKNOWN
        try:
            caller = self._admit(scope)
            scope.setdefault("state", {})["caller"] = caller
            # whoever watches over the service must not be turned away because others ask a lot
            is_free = scope["path"] in HEALTH_PATHS
            with contextlib.nullcontext() if is_free else self.rate_limiter.request(caller):
                await self.app(scope, receive, send_guarded)
        except ProblemError as error:
            response = error.response()
            if error.status_code == 401:
                response.headers["www-authenticate"] = "Bearer"
            await response(scope, receive, send_guarded)
        except ClientDisconnect:
            return  # in the middle of its body; nobody is left to be answered
        except Exception as error:
            response = inner_error(error)
            if status:
                raise  # the answer has begun: the server can only cut it off
            await response(scope, receive, send_guarded)
        finally:
            self._record(scope, status, caller, time.perf_counter() - started)

    def _admit(self, scope: Scope) -> str:
        """The caller's name. Raises ProblemError."""
        headers = Headers(scope=scope)
        _check_origin(headers)
        if self.tokens is None:
            _check_loopback(scope, headers)
            return LOCAL
        path = scope["path"]
        if path in OPEN_PATHS or path.startswith(OPEN_FOLDER):
            return "anyone"
        kind, _, token = headers.get("authorization", "").partition(" ")
        name = self.tokens.name_of(token.strip()) if kind.lower() == "bearer" else None
        if name is None:
            raise ProblemError(401, "this needs a valid token: Authorization: Bearer ...")
        return name

    def _record(self, scope: Scope, status: int, caller: str, seconds: float) -> None:
        """One line per request: the route's template, so that ids and what was sent stay out of the log."""
        route = getattr(scope.get("route"), "path", "other")
        self.metrics.request(route, scope["method"], status, seconds)
        logger.info("%s %s %s %.0f ms %s", scope["method"], route, status, 1000 * seconds, caller)


def _check_origin(headers: Mapping[str, str]) -> None:
    """A foreign page in somebody's browser must not act for them."""
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != headers.get("host"):
        raise ProblemError(403, "requests from other sites' pages are not answered")


def _check_loopback(scope: Scope, headers: Mapping[str, str]) -> None:
    """Without tokens only this machine is served, and only under its own names.

    The name matters too: a page elsewhere can give its host name the address 127.0.0.1, and a proxy on
    this machine can pass on what comes from outside.
    """
    ends = (scope.get("server"), scope.get("client"))
    is_local = all(end is None or is_loopback(end[0]) for end in ends)
    if not is_local or not is_loopback(_host_name(headers.get("host", ""))):
        raise ProblemError(403, "without tokens only this machine itself is served: see docs/serving.md")


def is_loopback(host: str | None) -> bool:
    """Whether a host name or address means this machine alone."""
    if host is None:
        return True  # a Unix socket
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _host_name(host: str) -> str:
    """The host of a Host header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _missing(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    present = {name.lower() for name, _ in headers}
    ours = [*HEADERS, (b"cache-control", b"no-store")]
    return [(name, value) for name, value in ours if name not in present]
