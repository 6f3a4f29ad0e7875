"""Access control: without a token file only this machine is served, with one every caller needs a token."""

import contextlib
import ipaddress
import logging
import time

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uniemo_ray.service.api.metrics import Metrics
from uniemo_ray.service.api.paths import route_path
from uniemo_ray.service.api.problems import ProblemError, internal_error
from uniemo_ray.service.api.rate_limiter import RateLimiter
from uniemo_ray.service.api.request_id import HEADER, choose_request_id, set_request_id
from uniemo_ray.service.request_log import FIELDS
from uniemo_ray.service.tokens import TokenFile

logger = logging.getLogger(__name__)

METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
HEALTH_PATHS = frozenset({"/healthz", "/readyz"})
OPEN_PATHS = HEALTH_PATHS | {"/", "/docs", "/openapi.json", "/favicon.ico"}
OPEN_FOLDER = "/page/"
LOCAL = "local"
"""Name of a caller on this machine, when there is no token file."""
ANYONE = "anyone"
"""Name of a caller without a token, where none is needed. Each address has limits of its own."""
UNKNOWN = "unknown"
IPV6_NETWORK_BITS = 64
"""An owner of IPv6 addresses has at least as many as these leave free."""
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
    """ASGI middleware that checks origin, token and rate limits before the body is read."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        tokens: TokenFile | None,
        rate_limiter: RateLimiter,
        metrics: Metrics,
        sends_request_id: bool,
        behind_haproxy: bool = False,
    ) -> None:
        """Wrap an application.

        Args:
            app: what answers.
            tokens: the valid tokens. Without them, only this machine is served.
            rate_limiter: limits of each caller.
            metrics: count every request.
            sends_request_id: whether responses get the header `X-Request-ID`.
            behind_haproxy: whether `head/haproxy.py` is in front. It names the caller's address in a header.
        """
        self.behind_haproxy = behind_haproxy
        self.app, self.tokens, self.rate_limiter, self.metrics = app, tokens, rate_limiter, metrics
        self.sends_request_id = sends_request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer with a problem."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)  # startup and shutdown; there are no websockets
            return
        started, status = time.perf_counter(), 0
        request_id = choose_request_id(Headers(scope=scope).get(HEADER))
        set_request_id(request_id)
        ours = [*HEADERS, (HEADER.encode(), request_id.encode())] if self.sends_request_id else [*HEADERS]

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_missing(message["headers"], ours)]
            await send(message)

        caller = UNKNOWN
        address = self._address(scope)
        try:
            caller = self._admit(scope, address)
            scope.setdefault("state", {})["caller"] = caller
            # health checks must be answered under any load
            is_free = route_path(scope) in HEALTH_PATHS
            limited = f"{ANYONE} {address}" if caller == ANYONE else caller
            with contextlib.nullcontext() if is_free else self.rate_limiter.request(limited):
                await self.app(scope, receive, send_guarded)
        except ProblemError as error:
            response = error.response()
            if error.status_code == 401:
                response.headers["www-authenticate"] = "Bearer"
            await response(scope, receive, send_guarded)
        except ClientDisconnect:
            return  # the caller left while it sent its body, so nobody would get the response
        except Exception as error:
            response = internal_error(error)
            if status:
                raise  # the response has begun, so the server can only close the connection
            await response(scope, receive, send_guarded)
        finally:
            self._record(scope, status, caller, request_id, time.perf_counter() - started)

    def _admit(self, scope: Scope, address: str) -> str:
        """The caller's name. Raises ProblemError."""
        headers = Headers(scope=scope)
        _check_origin(headers)
        if self.tokens is None:
            _check_loopback(scope, headers)
            return LOCAL
        path = route_path(scope).rstrip("/") or "/"
        if path in OPEN_PATHS or path.startswith(OPEN_FOLDER):
            return ANYONE
        kind, _, token = headers.get("authorization", "").partition(" ")
        name = self.tokens.name_of(token.strip()) if kind.lower() == "bearer" else None
        if name is None:
            self.rate_limiter.take(f"{ANYONE} {address}")  # guesses are limited too
            raise ProblemError(401, "a valid token is required: send the header Authorization: Bearer TOKEN")
        return name

    def _address(self, scope: Scope) -> str:
        """The caller's address, or its network for IPv6."""
        client = scope.get("client")
        text = client[0] if client else UNKNOWN
        if self.behind_haproxy:
            forwarded = Headers(scope=scope).getlist("x-forwarded-for")
            text = forwarded[-1].rpartition(",")[2].strip() if forwarded else text
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return UNKNOWN
        if address.version == 4:
            return str(address)
        return str(ipaddress.ip_network((address, IPV6_NETWORK_BITS), strict=False))

    def _record(self, scope: Scope, status: int, caller: str, request_id: str, seconds: float) -> None:
        """Log one line per request. It names the route's template, so it holds no id and no content."""
        method, route = _method(scope), getattr(scope.get("route"), "path", "other")
        self.metrics.count_request(route, method, status, seconds)
        fields = {
            "request_id": request_id,
            "token": caller,
            "method": method,
            "route": route,
            "status": status,
            "ms": round(1000 * seconds, 1),
        }
        logger.info(
            "%s %s %s %.0f ms %s", method, route, status, 1000 * seconds, caller, extra={FIELDS: fields}
        )


def _method(scope: Scope) -> str:
    """The method, or `other`: callers must not make names of metrics."""
    return scope["method"] if scope["method"] in METHODS else "other"


def _check_origin(headers: Headers) -> None:
    """Refuse requests that a page of another site makes in a user's browser. Each of several counts."""
    origins = {origin.partition("://")[2] for origin in headers.getlist("origin")}
    if origins and origins != set(headers.getlist("host")):
        raise ProblemError(403, "requests from pages of other sites are refused")


def _check_loopback(scope: Scope, headers: Headers) -> None:
    """Refuse requests from other machines, and requests under a host name that is not this machine's own.

    The host name is checked because a foreign page can point its own name to 127.0.0.1, and because a proxy
    on this machine can pass on requests from other machines.
    """
    ends = (scope.get("server"), scope.get("client"))
    is_local = all(end is None or is_loopback(end[0]) for end in ends)
    hosts = headers.getlist("host")
    if not (is_local and hosts and all(is_loopback(_host_name(host)) for host in hosts)):
        raise ProblemError(403, "without a token file only this machine is served: see docs/serving.md")


def is_loopback(host: str | None) -> bool:
    """Whether a host name or address is reachable from this machine alone."""
    if host is None:
        return True  # a Unix socket
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _host_name(host: str) -> str:
    """The host name of a Host header, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _missing(
    headers: list[tuple[bytes, bytes]], ours: list[tuple[bytes, bytes]]
) -> list[tuple[bytes, bytes]]:
    present = {name.lower() for name, _ in headers}
    return [(name, value) for name, value in [*ours, (b"cache-control", b"no-store")] if name not in present]
