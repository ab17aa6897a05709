"""The webhook's two addresses, on raw bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from relevo.webhooks import answers
from relevo.webhooks.answers import House
from relevo.webhooks.handlers.upstream import Reply
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

    def admit(self, named: Mapping[str, str], query: bytes) -> None:
        """Raises Unauthorized, before the body is read, for whoever shows nothing that could let them in."""
        self._router.admit(named, query)

    async def answer(
        self, scheme: str, headers: Sequence[tuple[bytes, bytes]], named: Mapping[str, str], query: bytes, body: bytes
    ) -> Reply:
        """The answer to one message, from somebody who was admitted. Raises Unauthorized and NoMessage."""
        house = self._house(scheme, named.get("host", ""))
        return await self._router.receive(Delivery(headers, named, query, body, house))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The same, as ASGI has it."""
        headers, query = scope["headers"], scope["query_string"]
        named = texts(headers)
        self.admit(named, query)
        reply = await self.answer(scope["scheme"], headers, named, query, await _whole(receive))
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


def endpoints(
    router: Router, *, public_url: str | None, credential_id: str | None, assistant: Mapping[str, Any]
) -> dict[str, Webhook]:
    """The webhook's endpoints by their paths. ``public_url``: the base that Vapi reaches us by; None: as each request
    has it. ``assistant``: parts of every assistant that are the platform's own choice, as the model."""
    return {path: Webhook(router, public_url, credential_id, assistant) for path in PATHS}
