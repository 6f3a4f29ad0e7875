"""The web page at `/`: static files of this server.

The page is hand-written HTML, CSS and JavaScript and does not use Gradio. It has no process and no queue of
its own, takes a few files instead of megabytes and makes no request to any other host. It uses the same API,
tokens and limits as every other client.
"""

import os
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response

from uniemo_ray.service.api.problems import ProblemError

FOLDER = Path(__file__).parents[1] / "page"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FILES = {path.name: path for path in sorted(FOLDER.iterdir()) if path.suffix in TYPES}
_CACHE = {"cache-control": "no-cache"}  # a browser checks whether a file has changed


def make_router() -> APIRouter:
    """Build the routes. The OpenAPI description does not contain them."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def page(request: Request) -> Response:
        return _file("index.html", request)

    @router.get("/docs")
    async def docs(request: Request) -> Response:
        return _file("docs.html", request)

    @router.get("/favicon.ico")
    async def icon(request: Request) -> Response:
        return _file("icon.svg", request)

    @router.get("/page/{name}")
    async def part(name: str, request: Request) -> Response:
        return _file(name, request)

    return router


def _file(name: str, request: Request) -> Response:
    path = FILES.get(
        name
    )  # names are looked up and not joined to a path, so a request cannot leave the folder
    if path is None:
        raise ProblemError(404, "there is no such page")
    response = FileResponse(path, media_type=TYPES[path.suffix], headers=_CACHE, stat_result=os.stat(path))
    if _has_current(request.headers.get("if-none-match", ""), response.headers["etag"]):
        return Response(status_code=304, headers={"etag": response.headers["etag"], **_CACHE})
    return response


def _has_current(if_none_match: str, etag: str) -> bool:
    """Whether a caller names the current version of a file among those it has."""
    known = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in known or "*" in known
