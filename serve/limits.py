"""What a request may ask for, checked before anything is decoded or computed."""

from dataclasses import asdict, dataclass

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True)
class Limits:
    """Bounds of one request."""

    body_bytes: int = 10_000_000
    """Size of a request's body, compressed image included."""
    pixels: int = 50_000_000
    """Width times height of an image, from its header: guards against decompression bombs."""
    steps: int = 100
    """Sampling steps of one generation."""
    prompt_characters: int = 300
    """Length of a prompt."""

    def as_dict(self) -> dict[str, int]:
        """For the answer of `/v1/model`."""
        return asdict(self)


class BodyLimit:
    """ASGI middleware that refuses a body as soon as it is known to be too large."""

    def __init__(self, app: ASGIApp, *, body_bytes: int) -> None:
        self.app = app
        self.body_bytes = body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count what arrives: the length header may be missing, or lie."""
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.body_bytes:
                raise HTTPException(413, f"the body is larger than {self.body_bytes} bytes")
            return message

        await self.app(scope, receive_counted if scope["type"] == "http" else receive, send)
