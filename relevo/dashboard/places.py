"""The places of the dashboard: who may come in, from where, and what is said when something is in the way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, urlsplit

import psycopg
from psycopg import errors as sql_errors
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relevo.access import sessions
from relevo.access.roles import Role
from relevo.dashboard.house import House, Visit, to
from relevo.errors import (
    DatabaseRefused,
    DatabaseUnreachable,
    Forbidden,
    IssuerFaulty,
    IssuerUnreachable,
    Refused,
    RelevoError,
    SchemaMissing,
    TooManyGuesses,
    Unauthorized,
    UnknownName,
    UsageError,
)

COOKIE = "relevo_session"

_STATUSES: tuple[tuple[type[RelevoError], int], ...] = (
    (Unauthorized, 401),
    (Forbidden, 403),
    (TooManyGuesses, 429),
    (UnknownName, 404),
    (UsageError, 400),
    (IssuerUnreachable, 503),
    (IssuerFaulty, 503),
    (DatabaseUnreachable, 503),
    (DatabaseRefused, 503),
    (SchemaMissing, 503),
    (Refused, 409),
    (RelevoError, 500),
)


@dataclass(frozen=True, slots=True)
class Place:
    """One method of one path. ``needed`` None: nobody has to be signed in."""

    method: Literal["GET", "POST"]
    path: str
    needed: Role | None
    answer: Callable[[Visit], Awaitable[Response]]


def route(place: Place, house: House) -> Route:
    """The place as a route."""

    async def endpoint(request: Request) -> Response:
        visit = Visit(house, request, None, house.clock())
        try:
            if place.method == "POST":
                refuse_foreign(request)
            visit = Visit(house, request, await _session(house, request), visit.now)
            if place.needed is not None:
                if visit.session is None:
                    return _sign_in_first(request)
                if visit.session.caller.role < place.needed:
                    raise Forbidden(
                        f"a {visit.session.caller.role.label} may not do this",
                        fix=f"sign in with a token of role {place.needed.label}",
                    )
            return await place.answer(visit)
        except RelevoError as error:
            return refusal(visit, error)
        except psycopg.Error as error:
            return refusal(visit, _named(error))

    return Route(place.path, endpoint, methods=[place.method])


def refuse_foreign(request: Request) -> None:
    """Only our own pages may act for whoever is signed in: by Fetch Metadata, or by the origin where a browser has no
    such thing.

    What sends neither is no browser, and carries no cookie that it was not given on purpose. Raises Forbidden.
    """
    site = request.headers.get("sec-fetch-site")
    if site in ("same-origin", "none"):
        return
    origin = request.headers.get("origin")
    if site is None and (origin is None or urlsplit(origin).netloc == request.headers.get("host")):
        return
    raise Forbidden("this was sent from another site", fix="open the dashboard itself, and do it there")


def refusal(visit: Visit, error: RelevoError) -> Response:
    """A page that says what is in the way and how to mend it."""
    status = status_of(error)
    return visit.page("error.html", status, what=str(error), fix=error.fix, status=status)


def status_of(error: RelevoError) -> int:
    """The status that an error comes with."""
    return next(status for cause, status in _STATUSES if isinstance(error, cause))


async def _session(house: House, request: Request) -> sessions.Session | None:
    secret = request.cookies.get(COOKIE)
    return await sessions.of(house.database, secret, house.wall()) if secret else None


def _sign_in_first(request: Request) -> Response:
    if request.headers.get("hx-request"):  # a fragment must not be replaced by a sign-in page
        return Response(status_code=200, headers={"hx-redirect": "/sign-in"})
    if request.method == "POST" or request.url.path == "/":
        return to("/sign-in")
    query = f"?{request.url.query}" if request.url.query else ""
    return to(f"/sign-in?to={quote(request.url.path + query)}")


def _named(error: psycopg.Error) -> RelevoError:
    """What PostgreSQL said may hold values, and is not repeated."""
    missing = (sql_errors.UndefinedTable, sql_errors.UndefinedColumn, sql_errors.InvalidSchemaName)
    if isinstance(error, missing):
        return SchemaMissing(
            f"the database lacks something this page reads: {error.diag.message_primary}",
            fix="run: relevo db up; where a v1 table is meant, run: relevo preflight",
        )
    return DatabaseUnreachable("the database cut this off; nothing was changed", fix="try again in a moment")
