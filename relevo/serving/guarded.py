"""Routes behind the door: who may not come in is told so before anything they sent is read."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from relevo.access.door import Door
from relevo.access.keyring import Caller
from relevo.access.roles import Role
from relevo.serving import problems

SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}

_TEXT = {"type": "string"}
_PROBLEM = {
    "type": "object",
    "properties": {"title": _TEXT, "status": {"type": "integer"}, "code": _TEXT, "what": _TEXT, "fix": _TEXT},
    "required": ["title", "status", "code", "what", "fix"],
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    each: {"description": told, "content": {problems.MEDIA_TYPE: {"schema": _PROBLEM}}}
    for each, told in (("4XX", "What is asked cannot be done."), ("5XX", "Not now."))
}


def guarded(door: Door, needed: Role) -> type[APIRoute]:
    """A kind of route for callers of at least this role: ``APIRouter(route_class=guarded(door, Role.OPERATOR))``.

    (A dependency would not do: FastAPI reads the body before it looks at dependencies.)
    """

    class Guarded(APIRoute):
        """Asks at the door first."""

        def __init__(self, path: str, endpoint: Any, **options: Any) -> None:
            shown = {"security": [{name: []} for name in SCHEMES], "x-role": needed.label}
            super().__init__(path, endpoint, **{**options, "openapi_extra": shown, "responses": PROBLEMS})

        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            """Answer a request that may come in. Raises what Door.admit raises."""
            address = scope["client"][0] if scope.get("client") else ""
            scope["state"]["caller"] = await door.admit(scope["headers"], address, needed)
            await super().handle(scope, receive, send)

    return Guarded


def caller(request: Request) -> Caller:
    """Who asks, on a guarded route."""
    found: Caller = request.state.caller
    return found
