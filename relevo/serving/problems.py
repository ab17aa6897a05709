"""Faults as answers: problem details (RFC 9457) with the same two sentences that the command line prints.

``what`` happened, and the ``fix``. Nothing of a request is repeated but what its sender wrote wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import psycopg
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from relevo import errors
from relevo.errors import RelevoError

MEDIA_TYPE = "application/problem+json"

# The first class that an error is of decides.
STATUSES: tuple[tuple[type[RelevoError], HTTPStatus], ...] = (
    (errors.Unauthorized, HTTPStatus.UNAUTHORIZED),
    (errors.Forbidden, HTTPStatus.FORBIDDEN),
    (errors.TooManyGuesses, HTTPStatus.TOO_MANY_REQUESTS),
    (errors.UnknownName, HTTPStatus.NOT_FOUND),
    (errors.UsageError, HTTPStatus.BAD_REQUEST),
    (errors.DatabaseUnreachable, HTTPStatus.SERVICE_UNAVAILABLE),
    (errors.DatabaseRefused, HTTPStatus.SERVICE_UNAVAILABLE),
    (errors.SchemaMissing, HTTPStatus.SERVICE_UNAVAILABLE),
    (errors.Refused, HTTPStatus.CONFLICT),
    (RelevoError, HTTPStatus.INTERNAL_SERVER_ERROR),
)
_HEADERS = {
    HTTPStatus.UNAUTHORIZED: {"www-authenticate": "Bearer"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"retry-after": "1"},
}
_FIXES = {
    HTTPStatus.NOT_FOUND: "see /api/openapi.json for what is here",
    HTTPStatus.METHOD_NOT_ALLOWED: "see the Allow header",
    HTTPStatus.REQUEST_TIMEOUT: "send the whole request without a pause",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "send less",
    HTTPStatus.INTERNAL_SERVER_ERROR: "see the server's log under this request id",
}
_CODES = {HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "BodyTooLarge"}  # whose name is another in each Python
BROKEN = (500, "something went wrong here; it is not your request")
_OFREP = "/ofrep/"  # whose errors always carry errorDetails


def problem(
    path: str,
    status: int,
    what: str,
    *,
    fix: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer to a request for ``path`` that came to nothing."""
    named = HTTPStatus(status)
    content = {
        "title": named.phrase,
        "status": int(named),
        "code": code or _CODES.get(named) or named.name.title().replace("_", ""),
        "what": what,
        "fix": fix or _FIXES.get(named, "correct the request"),
    }
    if path.startswith(_OFREP):
        content["errorDetails"] = f"{what} — {content['fix']}"
    return Response(
        to_json(content), int(named), headers={**_HEADERS.get(named, {}), **(headers or {})}, media_type=MEDIA_TYPE
    )


def of(path: str, error: RelevoError) -> Response:
    """One of our own errors, as an answer."""
    status = next(status for cause, status in STATUSES if isinstance(error, cause))
    headers = {"retry-after": str(error.wait_s)} if isinstance(error, errors.TooManyGuesses) else None
    return problem(path, status, str(error), fix=error.fix, code=error.code, headers=headers)


def of_any(path: str, error: Exception) -> Response:
    """Whatever a route may raise on purpose, as an answer. Raises what is none of that."""
    match error:
        case RelevoError():
            return of(path, error)
        case psycopg.OperationalError():  # what PostgreSQL said may hold values; the log of the database has it
            what = "the database cut this off; nothing was changed"
            return problem(path, 503, what, fix="try again in a moment", code="DatabaseUnreachable")
        case RequestValidationError():
            first: dict[str, Any] = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            status = 400 if first["type"] == "json_invalid" else 422
            return problem(path, status, f"{place}: {first['msg']}", fix="see /api/openapi.json")
        case HTTPException():
            known = error.status_code in (404, 405)
            what = HTTPStatus(error.status_code).phrase.lower() if known else error.detail
            return problem(path, error.status_code, what, headers=error.headers)
    raise error


def handle(app: FastAPI) -> None:
    """Have every error that a route raises answered as a problem."""
    for cause in (RelevoError, psycopg.OperationalError, RequestValidationError, HTTPException):
        app.add_exception_handler(cause, _answer)


async def _answer(request: Request, error: Exception) -> Response:
    return of_any(request.url.path, error)
