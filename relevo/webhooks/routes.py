"""The webhook's two addresses, as plain routes on raw bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from relevo.webhooks import answers
from relevo.webhooks.answers import House
from relevo.webhooks.router import Delivery, Router, texts

PATHS = ("/webhooks/vapi", "/api/voice-agent/webhook")
_MOST_HOUSES = 100  # strangers make up hosts


class Webhook:
    """One address, as an ASGI application: what Starlette would do around it costs more than most of our answers."""

    def __init__(
        self, router: Router, public_url: str | None, credential_id: str | None, own: Mapping[str, Any]
    ) -> None:
        self._router, self._public_url, self._credential_id, self._own = router, public_url, credential_id, own
        self._houses: dict[tuple[str, str], House] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one message."""
        headers = scope["headers"]
        named = texts(headers)
        self._router.admit(named, scope["query_string"])
        body = await _whole(receive)
        house = self._house(scope["scheme"], named.get("host", ""))
        reply = await self._router.receive(Delivery(headers, named, scope["query_string"], body, house))
        told = [
            (b"content-type", reply.content_type.encode("latin-1", "replace")),
            (b"content-length", str(len(reply.body)).encode()),
        ]
        await send({"type": "http.response.start", "status": reply.status, "headers": told})
        await send({"type": "http.response.body", "body": reply.body})

    def _house(self, scheme: str, host: str) -> House:
        found = self._houses.get((scheme, host))
        if found is None:
            if len(self._houses) >= _MOST_HOUSES:
                self._houses.clear()
            base = self._public_url or f"{scheme}://{host}"
            found = answers.house(base.rstrip("/") + PATHS[0], self._credential_id, self._own)
            self._houses[scheme, host] = found
        return found


async def _whole(receive: Receive) -> bytes:
    """A request's body. Raises ClientDisconnect for one that will not come to its end."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def routes(
    router: Router, *, public_url: str | None, credential_id: str | None, assistant: Mapping[str, Any]
) -> list[Route]:
    """``public_url``: the base that Vapi reaches us by; None: as each request has it. ``assistant``: parts of every
    assistant that are the platform's own choice, as the model."""
    return [Route(path, Webhook(router, public_url, credential_id, assistant), methods=["POST"]) for path in PATHS]
