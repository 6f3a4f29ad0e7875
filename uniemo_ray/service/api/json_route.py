"""Routes whose body is JSON and must say so."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from uniemo_ray.service.api.problems import ProblemError


class JsonRoute(APIRoute):
    """A route that refuses a POST without a JSON content type before it reads the body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with the check before it."""
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            if request.method == "POST" and not _is_json(request.headers.get("content-type", "")):
                raise ProblemError(415, "send JSON, with the header Content-Type: application/json")
            return await handle(request)

        return handle_json


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
