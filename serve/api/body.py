"""Bodies that are too large or too slow are refused while they arrive."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.api.problems import ProblemError
from serve.settings import Limits


class BodyLimit:
    """ASGI middleware that counts and times a body."""

    def __init__(self, app: ASGIApp, *, limits: Limits) -> None:
        self.app = app
        self.max_bytes, self.timeout_s = limits.body_bytes, limits.body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count what arrives: the length header may be missing, or lie."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self._check_length(Headers(scope=scope).get("content-length"))
        deadline = asyncio.get_running_loop().time() + self.timeout_s
        received, is_complete = 0, False

        async def receive_counted() -> Message:
            nonlocal received, is_complete
            if is_complete:
                return await receive()  # waits for the end of the connection, however long that takes
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise ProblemError(408, f"the body did not arrive within {self.timeout_s:g} s") from None
            received += len(message.get("body", b""))
            is_complete = not message.get("more_body", False)
            if received > self.max_bytes:
                raise self._too_large()
            return message

        await self.app(scope, receive_counted, send)

    def _check_length(self, length: str | None) -> None:
        if length is not None and length.isdecimal() and int(length[:20]) > self.max_bytes:
            raise self._too_large()

    def _too_large(self) -> ProblemError:
        return ProblemError(413, f"the body is larger than {self.max_bytes} bytes")
