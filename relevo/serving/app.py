"""The application that ``relevo serve`` runs, put together from its parts.

New parts are routers (``APIRouter``, their routes guarded), plain routes (raw bodies), and jobs that run beside them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from relevo.serving import background, problems
from relevo.serving.background import Job
from relevo.serving.envelope import LONGEST_MESSAGE, Envelope
from relevo.serving.guarded import SCHEMES
from relevo.serving.lane import Endpoint, Lanes
from relevo.serving.measures import Measures
from relevo.serving.told import Told


@dataclass(frozen=True, slots=True)
class Application:
    """All that is served: as ASGI has it, and by lanes."""

    asgi: ASGIApp
    lanes: Lanes


def create_app(
    version: str,
    measures: Measures,
    *,
    direct: Mapping[str, Endpoint] | None = None,
    routes: Iterable[BaseRoute] = (),
    routers: Iterable[APIRouter] = (),
    jobs: Iterable[Job] = (),
) -> Application:
    """The application. ``jobs`` run from the start of its lifespan to the end; one that fails is started again.

    ``direct``: what is posted to so often, by its path, that it has a lane.
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
    endpoints = dict(direct or {})
    posted = [Route(path, endpoint, methods=["POST"]) for path, endpoint in endpoints.items()]
    app.router.routes[:0] = [*posted, *routes]  # looked through in order, and these are asked most
    templates = {route.endpoint: route.path for route in app.router.routes if isinstance(route, Route)}
    told = Told(measures)
    app.add_middleware(Envelope, told=told, templates=templates, longest=dict.fromkeys(endpoints, LONGEST_MESSAGE))
    for router in routers:
        app.include_router(router)
    _show_security(app)
    return Application(app, Lanes({path.encode(): endpoint for path, endpoint in endpoints.items()}, told))


def _show_security(app: FastAPI) -> None:
    """Name in the OpenAPI document what the guarded routes ask for."""
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        document = generated()
        document.setdefault("components", {})["securitySchemes"] = SCHEMES
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation has it
