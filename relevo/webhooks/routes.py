"""The webhook's two addresses, as plain routes on raw bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relevo.webhooks import answers
from relevo.webhooks.answers import House
from relevo.webhooks.router import Delivery, Router, texts

PATHS = ("/webhooks/vapi", "/api/voice-agent/webhook")


def routes(
    router: Router, *, public_url: str | None, credential_id: str | None, assistant: Mapping[str, Any]
) -> list[Route]:
    """``public_url``: the base that Vapi reaches us by; None: as each request has it. ``assistant``: parts of every
    assistant that are the platform's own choice, as the model."""
    houses: dict[tuple[str, str], House] = {}

    def house(request: Request) -> House:
        key = (request.scope["scheme"], request.headers.get("host", ""))
        found = houses.get(key)
        if found is None:
            if len(houses) > 100:  # strangers make up hosts
                houses.clear()
            url = (public_url or "{}://{}".format(*key)).rstrip("/") + PATHS[0]
            found = houses[key] = answers.house(url, credential_id, assistant)
        return found

    async def webhook(request: Request) -> Response:
        router.admit(texts(request.scope["headers"]), request.scope["query_string"])
        body = await request.body()
        delivery = Delivery(request.scope["headers"], request.scope["query_string"], body, house(request))
        reply = await router.receive(delivery)
        return Response(reply.body, reply.status, media_type=reply.content_type)

    async def seeds_webhook(request: Request) -> Response:
        return await webhook(request)

    return [Route(PATHS[0], webhook, methods=["POST"]), Route(PATHS[1], seeds_webhook, methods=["POST"])]
