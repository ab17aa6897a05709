"""What machines ask about a process: is it alive, should it get work, and how does it fare."""

from __future__ import annotations

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relevo.serving import measures
from relevo.serving.measures import Measures
from relevo.serving.readiness import Readiness


def routes(readiness: Readiness, measured: Measures) -> list[Route]:
    """/healthz, /readyz and /metrics. None asks for a token: they tell of no tenant, and probes have none."""

    async def healthz(_request: Request) -> Response:
        return _json({"alive": True})

    async def readyz(_request: Request) -> Response:
        ready, told = readiness.look()
        return _json(told, 200 if ready else 503)

    async def metrics(_request: Request) -> Response:
        return Response(measured.exposition(), headers={"content-type": measures.MEDIA_TYPE})

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)]


def _json(told: dict[str, object], status: int = 200) -> Response:
    return Response(to_json(told), status, media_type="application/json")
