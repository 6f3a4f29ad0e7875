"""Refusal of bodies that are too large or too slow, while they arrive."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uniemo_ray.service.api.problems import ProblemError
from uniemo_ray.service.settings import Limits

FILE_PATH = "/v1/understand"
"""The one route that takes files. Bodies of other routes are small and are checked in the event loop."""


class BodyLimit:
    """ASGI middleware that limits the size of a body and the time in which it arrives."""

    def __init__(self, app: ASGIApp, *, limits: Limits) -> None:
        self.app = app
        self.file_bytes, self.timeout_s = limits.body_bytes, limits.body_timeout_s
        self.other_bytes = min(limits.generate_body_bytes, limits.body_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the bytes that arrive, because the length header may be missing or wrong."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        max_bytes = self.file_bytes if scope["path"] == FILE_PATH else self.other_bytes
        length = Headers(scope=scope).get("content-length")
        if length is not None and length.isdecimal() and int(length[:20]) > max_bytes:
            raise _too_large(max_bytes)
        deadline = asyncio.get_running_loop().time() + self.timeout_s
        received, is_complete = 0, False

        async def receive_counted() -> Message:
            nonlocal received, is_complete
            if is_complete:
                return await receive()  # waits for the end of the connection, for any time
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise ProblemError(408, f"the body did not arrive within {self.timeout_s:g} s") from None
            received += len(message.get("body", b""))
            is_complete = not message.get("more_body", False)
            if received > max_bytes:
                raise _too_large(max_bytes)
            return message

        await self.app(scope, receive_counted, send)


def _too_large(max_bytes: int) -> ProblemError:
    return ProblemError(413, f"the body is larger than {max_bytes} bytes")
