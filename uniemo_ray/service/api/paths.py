"""Paths of requests below a route prefix: Serve leaves it in the path and names it in `root_path`."""

from starlette.types import Scope


def route_path(scope: Scope) -> str:
    """The path of a request without the route prefix."""
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "").rstrip("/")
    is_below = path == prefix or path.startswith(f"{prefix}/")
    return path[len(prefix) :] if is_below else path


def link(scope: Scope, path: str) -> str:
    """A path of this application as callers must ask for it."""
    prefix: str = scope.get("root_path", "").rstrip("/")
    return prefix + path
