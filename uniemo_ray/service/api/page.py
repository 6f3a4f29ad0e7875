"""The web page at `/`: static files of this server, and nothing from elsewhere.

Hand-written HTML, CSS and JavaScript rather than Gradio: no process and no queue of its own, a few files
instead of megabytes, no request to any other host, and the same API, tokens and limits as everybody's.
"""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, Response

from uniemo_ray.service.api.problems import ProblemError

FOLDER = Path(__file__).parents[1] / "page"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FILES = {path.name: path for path in sorted(FOLDER.iterdir()) if path.suffix in TYPES}
_CACHE = {"cache-control": "no-cache"}  # a browser asks whether a file has changed


def make_router() -> APIRouter:
    """The routes; they are not part of the API's description."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def page() -> Response:
        return _file("index.html")

    @router.get("/docs")
    async def docs() -> Response:
        return _file("docs.html")

    @router.get("/favicon.ico")
    async def icon() -> Response:
        return _file("icon.svg")

    @router.get("/page/{name}")
    async def part(name: str) -> Response:
        return _file(name)

    return router


def _file(name: str) -> Response:
    path = FILES.get(name)  # looked up, not joined: there is no way out of the folder
    if path is None:
        raise ProblemError(404, "there is no such page")
    return FileResponse(path, media_type=TYPES[path.suffix], headers=_CACHE)
