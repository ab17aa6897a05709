"""The application that ``relevo serve`` runs, put together from its parts.

New parts are routers (``APIRouter``, their routes guarded), plain routes (raw bodies), and jobs that run beside them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.routing import BaseRoute, Route

from relevo.serving import background, problems
from relevo.serving.background import Job
from relevo.serving.envelope import Envelope
from relevo.serving.guarded import SCHEMES
from relevo.serving.measures import Measures


def create_app(
    version: str,
    measures: Measures,
    *,
    routes: Iterable[BaseRoute] = (),
    routers: Iterable[APIRouter] = (),
    jobs: Iterable[Job] = (),
) -> FastAPI:
    """The application. ``jobs`` run from the start of its lifespan to the end; one that fails is started again."""

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
    app.router.routes[:0] = routes  # looked through in order, and these are asked most
    templates = {route.endpoint: route.path for route in app.router.routes if isinstance(route, Route)}
    app.add_middleware(Envelope, measures=measures, templates=templates)
    for router in routers:
        app.include_router(router)
    _show_security(app)
    return app


def _show_security(app: FastAPI) -> None:
    """Name in the OpenAPI document what the guarded routes ask for."""
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        document = generated()
        document.setdefault("components", {})["securitySchemes"] = SCHEMES
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation has it
