"""Errors as JSON problems (RFC 9457): `type`, `title`, `status`, `detail`, `field`; never a stack trace."""

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """Why a request was refused."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    field: str | None = None


def add_problem_handlers(app: FastAPI) -> None:
    """Make every error of the application a JSON problem."""

    @app.exception_handler(HTTPException)
    async def refuse(_request: Request, error: HTTPException) -> JSONResponse:
        return answer(error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    async def refuse_invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"] if part != "body")
        return answer(422, str(first["msg"]).removeprefix("Value error, "), field=field or None)

    @app.exception_handler(Exception)
    async def fail(_request: Request, error: Exception) -> JSONResponse:
        logger.error("request failed: %s", type(error).__name__, exc_info=error)
        return answer(500, "the request could not be completed; the server's log says why")


def answer(status: int, detail: str, *, field: str | None = None) -> JSONResponse:
    """One problem as a response."""
    problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, field=field)
    return JSONResponse(problem.model_dump(exclude_none=True), status_code=status, media_type=MEDIA_TYPE)
