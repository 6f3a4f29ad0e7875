"""Refusal of bodies that are too large, too slow, compressed or too many at once, while they arrive."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uniemo_ray.service.api.paths import route_path
from uniemo_ray.service.api.problems import ProblemError
from uniemo_ray.service.memory import MemoryBudget
from uniemo_ray.service.settings import BODY_COPIES, RETRY_AFTER_S, Limits

FILE_PATH = "/v1/understand"
"""The one route that takes files. Bodies of other routes are small."""


class BodyLimit:
    """ASGI middleware that limits a body's size, the time until it is there, and the memory of all bodies."""

    def __init__(self, app: ASGIApp, *, limits: Limits, memory: MemoryBudget) -> None:
        self.app, self.memory = app, memory
        self.file_bytes, self.timeout_s = limits.body_bytes, limits.body_timeout_s
        self.other_bytes = min(limits.generate_body_bytes, limits.body_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or raise ProblemError."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_file = route_path(scope).rstrip("/") == FILE_PATH
        body = _Body(self.memory, self.file_bytes if is_file else self.other_bytes)
        headers = Headers(scope=scope)
        _check_encoding(headers)
        try:
            body.expect(headers.get("content-length"))
            await self.app(scope, self._counted(receive, body), send)
        finally:
            body.give_back()

    def _counted(self, receive: Receive, body: "_Body") -> Receive:
        """Count the bytes that arrive, because the length header may be missing or wrong."""
        deadline = asyncio.get_running_loop().time() + self.timeout_s

        async def receive_counted() -> Message:
            if body.is_complete:
                return await receive()  # waits for the end of the connection, for any time
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise ProblemError(408, f"the body did not arrive within {self.timeout_s:g} s") from None
            body.add(len(message.get("body", b"")))
            body.is_complete = not message.get("more_body", False)
            return message

        return receive_counted


class _Body:
    """The bytes of one body, and the memory that it has taken."""

    def __init__(self, memory: MemoryBudget, max_bytes: int) -> None:
        self.memory, self.max_bytes = memory, max_bytes
        self.received, self.taken, self.is_complete = 0, 0, False

    def expect(self, length: str | None) -> None:
        """Take the memory of a body whose length is known. Raises ProblemError."""
        if length is not None and length.isdecimal():
            self._hold(int(length[:20]))

    def add(self, count: int) -> None:
        """Count bytes that have arrived. Raises ProblemError."""
        self.received += count
        self._hold(self.received)

    def give_back(self) -> None:
        """Return the memory."""
        self.memory.give_back_body(self.taken)
        self.taken = 0

    def _hold(self, length: int) -> None:
        if length > self.max_bytes:
            raise ProblemError(413, f"the body is larger than {self.max_bytes} bytes")
        more = BODY_COPIES * length - self.taken
        if more > 0:
            if not self.memory.take_for_body(more):
                raise ProblemError(
                    503, "the server has no memory left for this body", retry_after_s=RETRY_AFTER_S
                )
            self.taken += more


def _check_encoding(headers: Headers) -> None:
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise ProblemError(
            415,
            f"the body is compressed ({encoding[:40]}): send it as it is, without Content-Encoding",
            headers={"accept-encoding": "identity"},
        )
