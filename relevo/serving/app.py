"""The application that ``relevo serve`` runs, put together from its parts.

New parts are routers (``APIRouter``, their routes guarded), plain routes (raw bodies), and jobs that run beside them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import psycopg
from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from relevo.errors import RelevoError
from relevo.serving import background, problems
from relevo.serving.background import Job
from relevo.serving.envelope import LONGEST_MESSAGE, Envelope
from relevo.serving.guarded import SCHEMES
from relevo.serving.measures import Measures


def create_app(
    version: str,
    measures: Measures,
    *,
    direct: Iterable[Route] = (),
    routes: Iterable[BaseRoute] = (),
    routers: Iterable[APIRouter] = (),
    jobs: Iterable[Job] = (),
) -> ASGIApp:
    """The application. ``jobs`` run from the start of its lifespan to the end; one that fails is started again.

    ``direct``: routes of fixed paths whose endpoints are ASGI applications, asked so often that what FastAPI does
    around a route would cost more than they do. They raise our own errors, or Starlette's, like any other.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with background.running(jobs):
            yield

    app = FastAPI(
        title="Relevo",
        version=version,
        openapi_url="/api/openapi.json",
        docs_url=None,  # its pages come from a CDN
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    problems.handle(app)
    direct = list(direct)
    app.router.routes[:0] = [*direct, *routes]  # looked through in order, and these are asked most
    templates = {route.endpoint: route.path for route in app.router.routes if isinstance(route, Route)}
    app.add_middleware(Envelope, measures=measures, templates=templates)
    for router in routers:
        app.include_router(router)
    _show_security(app)
    return _with_lanes(app, direct, partial(Envelope, measures=measures, templates=templates))


def _with_lanes(app: FastAPI, direct: Iterable[Route], envelope: Callable[..., Envelope]) -> ASGIApp:
    lanes = {
        (method, route.path): envelope(_Direct(route.endpoint), longest=LONGEST_MESSAGE)
        for route in direct
        for method in route.methods or ()
    }

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        asked = scope.get("method", ""), scope.get("path", "")  # neither is there for the lifespan
        await lanes.get(asked, app)(scope, receive, send)

    return application


class _Direct:
    """An endpoint with nothing around it but an answer to what it raises."""

    def __init__(self, endpoint: ASGIApp) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["endpoint"] = self._endpoint
        try:
            await self._endpoint(scope, receive, send)
        except (RelevoError, psycopg.OperationalError, HTTPException) as error:
            answer = problems.of_any(scope["path"], error)
            await answer(scope, receive, send)


def _show_security(app: FastAPI) -> None:
    """Name in the OpenAPI document what the guarded routes ask for."""
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        document = generated()
        document.setdefault("components", {})["securitySchemes"] = SCHEMES
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation has it
