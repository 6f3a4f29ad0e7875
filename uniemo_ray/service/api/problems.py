"""Errors as JSON problems (RFC 9457): `type`, `title`, `status`, `detail`, `field`, without a stack trace."""

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.routing import Match

from uniemo_ray.service.api.request_id import current_request_id
from uniemo_ray.service.backend import Refusal, UnavailableError
from uniemo_ray.service.settings import RETRY_AFTER_S
from uniemo_ray.store.errors import StoreError, StoreFullError

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
_FIELD_CHARACTERS = 100
_METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")
NO_MEMORY = "the server has not enough memory for this request now"
_RETRY_AFTER = {
    "description": "Seconds to wait before the next attempt.",
    "schema": {"type": "integer", "minimum": 0},
}


class Problem(BaseModel):
    """Why a request failed."""

    model_config = ConfigDict(
        use_attribute_docstrings=True,
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Unprocessable Content",
                    "status": 422,
                    "detail": "unknown emotion 'joy': expected one of amusement, awe, ...",
                    "field": "emotion",
                }
            ]
        },
    )

    type: str = "about:blank"
    """Always `about:blank`: the status says what kind of problem it is."""
    title: str
    """Name of the HTTP status."""
    status: int
    """The HTTP status."""
    detail: str
    """What is wrong, in words for people."""
    field: str | None = None
    """The part of the request that is at fault, for example `images.2`."""
    request_id: str | None = None
    """The id of the request, as in the header `X-Request-ID` and in the server's log."""


class ProblemError(HTTPException):
    """An error that ends a request with a problem."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        field: str | None = None,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, headers)
        self.field, self.retry_after_s = field, retry_after_s

    def response(self) -> JSONResponse:
        """The response that holds the problem."""
        headers = dict(self.headers or {})
        if self.retry_after_s is not None:
            headers["retry-after"] = str(math.ceil(self.retry_after_s))
        return problem_response(self.status_code, self.detail, field=self.field, headers=headers)


def to_problem(refusal: Refusal, *, field: str | None = None) -> ProblemError:
    """Turn a refusal into a problem."""
    if refusal.retry_after_s is not None:
        return ProblemError(503, refusal.detail, retry_after_s=refusal.retry_after_s)
    if refusal.is_server_error:
        return ProblemError(500, refusal.detail)
    return ProblemError(422, refusal.detail, field=field or refusal.field)


def store_problem(error: StoreError) -> ProblemError:
    """Turn an error of the generation store into a problem."""
    if isinstance(error, StoreFullError):
        return ProblemError(507, "the server's storage is full, so no generation can be kept now")
    return ProblemError(
        503,
        "the server's storage cannot be used, so no generation can be kept now",
        retry_after_s=RETRY_AFTER_S,
    )


def add_problem_handlers(app: FastAPI) -> None:
    """Turn every error of the application into a JSON problem."""

    @app.exception_handler(ProblemError)
    async def handle_problem(_request: Request, error: ProblemError) -> JSONResponse:
        return error.response()

    @app.exception_handler(UnavailableError)
    async def handle_unavailable(_request: Request, error: UnavailableError) -> JSONResponse:
        return ProblemError(503, str(error), retry_after_s=error.retry_after_s).response()

    @app.exception_handler(StoreError)
    async def handle_store(_request: Request, error: StoreError) -> JSONResponse:
        logger.error("the generation store refuses a request: %s", error)  # names a path: not for callers
        return store_problem(error).response()

    @app.exception_handler(HTTPException)
    async def handle_http_error(request: Request, error: HTTPException) -> JSONResponse:
        is_method = error.status_code == HTTPStatus.METHOD_NOT_ALLOWED
        headers = {"allow": _allowed(request)} if is_method else error.headers
        return problem_response(error.status_code, str(error.detail), headers=headers)

    @app.exception_handler(RequestValidationError)
    async def handle_invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        places = [str(part) for part in first["loc"][1:] if not str(part).startswith(("<", "[key]"))]
        detail = str(first["msg"]).removeprefix("Value error, ")
        is_syntax = first["type"] == "json_invalid"
        return problem_response(
            400 if is_syntax else 422, detail, field=None if is_syntax else ".".join(places)
        )


def _allowed(request: Request) -> str:
    """The methods of all routes of a path. Starlette itself names only those of the first route."""
    scopes = ({**request.scope, "method": method} for method in _METHODS)
    found = [
        scope["method"]
        for scope in scopes
        if any(route.matches(scope)[0] == Match.FULL for route in request.app.routes)
    ]
    return ", ".join(sorted([*found, *(["HEAD"] if "GET" in found else [])]))


def internal_error(error: Exception) -> JSONResponse:
    """The response to an unexpected error. Its details go to the log and not to the caller."""
    if isinstance(error, MemoryError):
        logger.error(
            "the memory was not enough for a request: set limits.memory_mb, pixels or body_bytes lower"
        )
        return ProblemError(503, NO_MEMORY, retry_after_s=RETRY_AFTER_S).response()
    logger.error("a request failed: %s", type(error).__name__, exc_info=error)
    return problem_response(500, "the request could not be completed; the server's log says why")


def problem_response(
    status: int, detail: str, *, field: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Build a response that holds a problem."""
    problem = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=_clean(detail),
        field=_clean(field or "") or None,
        request_id=current_request_id(),
    )
    content = problem.model_dump(exclude_none=True)
    return JSONResponse(content, status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {}))


def _clean(text: str) -> str:
    """Shorten a text that may quote the caller, and make it valid Unicode."""
    return text.encode("utf-8", "replace").decode()[: 5 * _FIELD_CHARACTERS]


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries of the problems of a route."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            **({"headers": {"Retry-After": _RETRY_AFTER}} if status in (429, 503) else {}),
        }
        for status in statuses
    }
