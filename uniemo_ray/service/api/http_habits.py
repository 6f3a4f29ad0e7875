"""What every HTTP client may expect: HEAD where GET is, and redirects that hold behind any web server."""

from urllib.parse import urlsplit, urlunsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HttpHabits:
    """ASGI middleware that answers HEAD as GET without a body, and shortens redirects to a path."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["method"] == "HEAD":
            await self._head(scope, receive, send)
        else:
            await self.app(scope, receive, _with_short_redirects(send))

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_sent = False

        async def send_head(message: Message) -> None:
            nonlocal is_sent
            if message["type"] != "http.response.body":
                await send(message)
            elif not is_sent:
                is_sent = True
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                if message.get("more_body", False):
                    raise ClientDisconnect  # an event stream would go on

        scope["method"] = "GET"
        try:
            await self.app(scope, receive, _with_short_redirects(send_head))
        except ClientDisconnect:
            if not is_sent:
                raise
        finally:
            scope["method"] = "HEAD"


def _with_short_redirects(send: Send) -> Send:
    """Send redirects without scheme and host: a web server in front may have other ones."""

    async def send_short(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] in (307, 308):
            headers = MutableHeaders(raw=[*message["headers"]])
            place = urlsplit(headers.get("location", ""))
            if place.path.startswith("/") and not place.path.startswith("//"):
                headers["location"] = urlunsplit(("", "", place.path, place.query, ""))
            message = {**message, "headers": headers.raw}
        await send(message)

    return send_short
