"""One endpoint for all of Vapi's server messages: who speaks, what it says, whose call it is, who answers.

Every call is answered by one version from its first message to its last; what a message says is stored before it is
confirmed; no message, however bent, makes an error of ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from pydantic_core import to_json

from relevo.clock import Clock
from relevo.errors import Unauthorized
from relevo.metrics.record import Pin, Version
from relevo.webhooks import acting, message
from relevo.webhooks import pin as pins
from relevo.webhooks.acting import BackEnd
from relevo.webhooks.answers import APOLOGY, APOLOGY_BEFORE_TRANSFER, House, transfer_to
from relevo.webhooks.asking import Asked, Asking
from relevo.webhooks.authentication import Authentication
from relevo.webhooks.breaking import Breakers
from relevo.webhooks.calls import UNAVAILABLE, Calls
from relevo.webhooks.handlers.upstream import HandlerFailed, Reply, Upstream
from relevo.webhooks.known import Known
from relevo.webhooks.message import Event
from relevo.webhooks.shadow import Shadow

TOOLS_WITHIN_S = 15.0  # of the 20 s that Vapi waits for anything but assistant-request
FORWARD_WITHIN_S = 10.0

RECORDED = frozenset({"status-update", "end-of-call-report"})
_OVER = frozenset({"end-of-call-report"})
NOTHING = b"{}"
_JSON = "application/json"
_NOT_LET_IN = "the webhook's sender is not who it should be"
_SEND_AGAIN = Reply(503, _JSON, b'{"error":"not stored; send it again"}')

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request, as it came."""

    headers: Sequence[tuple[bytes, bytes]]
    named: Mapping[str, str]  # the same by their names in lower case
    query: bytes
    body: bytes
    house: House


@dataclass(frozen=True, slots=True)
class _Received:
    """A delivery that was let in and understood."""

    event: Event
    delivery: Delivery
    presented: Pin | None  # the signed pin that it came with, of its own call
    synthetic: bool


class Router:
    """See the module."""

    def __init__(
        self,
        authentication: Authentication,
        known: Known,
        calls: Calls,
        asking: Asking,
        back_end: BackEnd,
        breakers: Breakers,
        clock: Clock,
        upstreams: Mapping[Version, Upstream],
        shadow: Shadow | None = None,
    ) -> None:
        self._authentication, self._known, self._calls = authentication, known, calls
        self._asking, self._back_end, self._breakers = asking, back_end, breakers
        self._clock, self._upstreams, self._shadow = clock, upstreams, shadow
        self._answers: Mapping[str, Callable[[_Received, Pin | None], Awaitable[Reply]]] = {
            "tool-calls": self._tools,
            "function-call": self._tools,
            "transfer-destination-request": self._transfer,
            "handoff-destination-request": self._handoff,
            "knowledge-base-request": self._no_documents,
            "campaign.predial": self._eligible,
        }

    def admit(self, headers: Mapping[str, str], query: bytes) -> None:
        """Raises Unauthorized, before the body is read, for whoever shows nothing that could let them in."""
        if not self._authentication.configured:
            raise Unauthorized(
                "no webhook authentication is configured, so nobody is let in",
                fix="set RELEVO_VAPI_SECRET, or say RELEVO_WEBHOOK_AUTH=none",
            )
        if self._authentication.by_headers(headers) or self._authentication.is_signed(headers):
            return
        if self._presented(query) is None:
            raise _refused()

    async def receive(self, delivery: Delivery) -> Reply:
        """The answer to one message; 503 for one that could not be stored and should come again. Raises Unauthorized
        and NoMessage."""
        headers = delivery.named
        trusted = self._authentication.by_headers(headers) or self._authentication.by_signature(
            headers, delivery.body, self._clock()
        )
        presented = self._presented(delivery.query)
        if not trusted and presented is None:
            raise _refused()
        event = message.parse(delivery.body)
        if presented is not None and presented.call_id != event.call_id:  # a pin speaks for its own call alone
            presented = None
            if not trusted:
                raise _refused()
        synthetic = trusted and headers.get("x-relevo-synthetic", "").lower() == "true"
        received = _Received(event, delivery, presented, synthetic)
        if event.type == "assistant-request":
            return await self._ask(received)
        if event.type in RECORDED:
            return await self._record(received)
        return await self._other(received)

    async def _ask(self, received: _Received) -> Reply:
        delivery = received.delivery
        asked = Asked(received.event, delivery.body, delivery.headers, delivery.house, received.synthetic)
        body, pin = await self._asking.answer(asked)
        if self._shadow is not None and pin is not None and pin.version == "v1":
            self._shadow.watch(asked, pin, body)
        return Reply(200, _JSON, body)

    async def _record(self, received: _Received) -> Reply:
        event = received.event
        try:
            pin = await self._calls.record(event, received.presented, synthetic=received.synthetic)
        except UNAVAILABLE as error:
            _log.error("message not stored", type=event.type, call_id=event.call_id, error=type(error).__name__)
            return _SEND_AGAIN
        if event.type in _OVER and event.call_id is not None:
            self._calls.forget(event.call_id)
        return await self._passed_on(received, pin)

    async def _other(self, received: _Received) -> Reply:
        answer = self._answers.get(received.event.type)
        pin = await self._calls.pin_of(received.event, received.presented)
        if answer is None:
            return await self._passed_on(received, pin)
        if self._upstream(pin) is None or received.event.type in ("tool-calls", "function-call"):
            return await answer(received, pin)
        try:
            return await self._forward(received, pin, FORWARD_WITHIN_S)
        except HandlerFailed:
            return await answer(received, pin)

    async def _passed_on(self, received: _Received, pin: Pin | None) -> Reply:
        """Told to the upstream, where there is one; nothing is to be answered."""
        if self._upstream(pin) is None:
            return Reply(200, _JSON, NOTHING)
        try:
            return await self._forward(received, pin, FORWARD_WITHIN_S)
        except HandlerFailed as failure:
            _log.warning("not passed on", type=received.event.type, call_id=received.event.call_id, why=str(failure))
            return _SEND_AGAIN

    async def _tools(self, received: _Received, pin: Pin | None) -> Reply:
        """Always 200, because Vapi reads nothing else."""
        event = received.event
        if pin is None:
            return Reply(200, _JSON, acting.failed(event.tool_calls))
        if self._upstream(pin) is None:
            return Reply(200, _JSON, await self._back_end.act(event, pin))
        try:
            reply = await self._forward(received, pin, TOOLS_WITHIN_S)
        except HandlerFailed as failure:
            _log.warning("tool calls failed", call_id=event.call_id, why=str(failure))
            return Reply(200, _JSON, acting.failed(event.tool_calls))
        if reply.status != 200:
            return Reply(200, _JSON, acting.failed(event.tool_calls))
        outcome = acting.succeeded(event.tool_calls, reply.body)
        if outcome is not None:
            try:
                await self._calls.record(event, pin, tool_outcome=outcome)
            except UNAVAILABLE:
                _log.error("tool's success not stored", call_id=event.call_id, outcome=outcome)
        return reply

    async def _transfer(self, _received: _Received, pin: Pin | None) -> Reply:
        entry = self._known.of_tenant(pin.tenant_id) if pin else None
        if entry is None or entry.human_line is None:
            return Reply(200, _JSON, to_json({"error": APOLOGY}))
        return Reply(200, _JSON, to_json({"destination": transfer_to(entry.human_line, APOLOGY_BEFORE_TRANSFER)}))

    async def _handoff(self, _received: _Received, _pin: Pin | None) -> Reply:
        return Reply(200, _JSON, to_json({"error": APOLOGY}))

    async def _no_documents(self, _received: _Received, _pin: Pin | None) -> Reply:
        return Reply(200, _JSON, b'{"documents":[]}')

    async def _eligible(self, _received: _Received, _pin: Pin | None) -> Reply:
        return Reply(200, _JSON, b'{"eligible":true}')

    async def _forward(self, received: _Received, pin: Pin | None, within_s: float) -> Reply:
        """The upstream's own answer. Raises HandlerFailed for none, and while its breaker is open."""
        upstream = self._upstream(pin)
        if upstream is None or pin is None:
            raise HandlerFailed("there is no upstream")
        key = (pin.served_version, upstream.name)
        how = await self._breakers.admit(key)
        if how == "stop":
            raise HandlerFailed("its breaker is open")
        loop = asyncio.get_running_loop()
        began_s, failed = loop.time(), True
        try:
            reply = await upstream.forward(received.delivery.body, received.delivery.headers, within_s)
            failed = reply.status >= 500
        finally:
            await self._breakers.told(key, how, loop.time() - began_s, failed=failed)
        return reply

    def _upstream(self, pin: Pin | None) -> Upstream | None:
        return self._upstreams.get(pin.served_version) if pin is not None else None

    def _presented(self, query: bytes) -> Pin | None:
        text = pins.in_query(query)
        return pins.verified(text, self._known.keys, self._clock()) if text is not None else None


def texts(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by their names in lower case; of several of a name, the last."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}


def _refused() -> Unauthorized:
    return Unauthorized(_NOT_LET_IN, fix="send the secret, the bearer token or the signature agreed on")
