"""assistant-request: Vapi asks who answers a call. 7.5 s from end to end, whatever happens.

Who it is for → which version → what it says → the pin, durable → the answer. Until the pin, v1 stands in for a v2 that
fails, and that is counted against v2.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from pydantic_core import from_json, to_json

from relevo.clock import Clock
from relevo.errors import RelevoError
from relevo.flags.store import Flags
from relevo.metrics.record import Pin, Version
from relevo.webhooks import pin as pins
from relevo.webhooks import route
from relevo.webhooks.answers import House, Template, apology, with_server
from relevo.webhooks.breaking import Breakers, Key
from relevo.webhooks.calls import UNAVAILABLE, Calls
from relevo.webhooks.handlers import v1, v2
from relevo.webhooks.handlers.upstream import HandlerFailed, NothingToSay, Upstream
from relevo.webhooks.identify import Entry, Found
from relevo.webhooks.known import Known
from relevo.webhooks.message import Event
from relevo.webhooks.unplaced import Unplaced

# How Vapi's 7.5 s are split; the rest is the network's. docs/router.md tells the same.
LOOK_WITHIN_S = 0.5  # for a number that is not known: it may be new
V2_WITHIN_S = 2.5
V1_WITHIN_S = 2.5
# and calls.PIN_WITHIN_S: 1.0

_RESTS = "its breaker is open"
_ANSWERS = ("assistantId", "assistant", "squadId", "squad", "destination", "error", "workflowId", "workflow")


@dataclass(frozen=True, slots=True)
class Asked:
    """One assistant-request, and how it came."""

    event: Event
    body: bytes
    headers: Sequence[tuple[bytes, bytes]]
    house: House
    synthetic: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of asking the versions: who answered, what, and why not whoever was decided for."""

    served: Version
    answer: Template | dict[str, Any] | None  # None: nobody answered
    fallback: str | None = None


class Asking:
    """See the module."""

    def __init__(
        self,
        known: Known,
        calls: Calls,
        flags: Flags,
        breakers: Breakers,
        unplaced: Unplaced,
        clock: Clock,
        upstreams: dict[Version, Upstream],
    ) -> None:
        self._known, self._calls, self._flags, self._breakers = known, calls, flags, breakers
        self._unplaced, self._clock, self._upstreams = unplaced, clock, upstreams

    async def answer(self, asked: Asked) -> tuple[bytes, Pin | None]:
        """What Vapi is told, and the pin that stands; None for a call without an id."""
        event = asked.event
        found = await self._found(event)
        entry = found.entry
        if entry is None:
            self._unplaced.note(event, found.why)
        earlier = self._calls.remembered(event.call_id) if event.call_id else None
        if earlier is not None and earlier.asked:
            return await self._again(asked, earlier, entry)
        evaluation = self._flags.evaluate(entry.tenant_id) if entry else None
        decision = route.when_asked(found, evaluation)
        if entry is None or not entry.active:
            attempt = Attempt("v1", None)
        else:
            attempt = await self._attempt(asked, entry, decision.version)
        if event.call_id is None:
            return _encoded(attempt.answer, asked.house, None, entry), None
        pin = route.pinned(event.call_id, found, decision, self._clock(), asked=True, served=attempt.served)
        standing = await self._calls.pin(
            pin,
            event,
            fallback=attempt.fallback,
            unanswered=attempt.answer is None and not (entry and not entry.active),
            synthetic=asked.synthetic,
        )
        if (standing.tenant_id, standing.served_version) != (pin.tenant_id, pin.served_version):
            return await self._again(asked, standing, entry)
        return _encoded(attempt.answer, asked.house, self._token(standing), entry), standing

    async def ask(self, asked: Asked, entry: Entry, version: Version, within_s: float) -> Template | dict[str, Any]:
        """What one version answers, through its breaker. Raises HandlerFailed."""
        key = self._key(version)
        how = await self._breakers.admit(key)
        if how == "stop":
            raise HandlerFailed(_RESTS)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        failed: bool | None = True
        try:
            answer = await self._answered(asked, entry, version, within_s)
            failed = False
        except NothingToSay:
            failed = None
            raise
        finally:
            await self._breakers.told(key, how, loop.time() - began_s, failed=failed)
        return answer

    async def look(self, asked: Asked, entry: Entry, version: Version, within_s: float) -> Template | dict[str, Any]:
        """What one version would answer, where no caller waits for it: it tells the breaker nothing, and is no probe.
        Raises HandlerFailed."""
        if not self._breakers.closed(self._key(version)):
            raise HandlerFailed(_RESTS)
        return await self._answered(asked, entry, version, within_s)

    def _key(self, version: Version) -> Key:
        upstream = self._upstreams.get(version)
        return version, upstream.name if upstream else ""

    async def _answered(
        self, asked: Asked, entry: Entry, version: Version, within_s: float
    ) -> Template | dict[str, Any]:
        upstream = self._upstreams.get(version)
        if upstream is None and self._known.has_heard(entry):  # at hand: nothing to wait for
            return await self._built_in(asked, entry, version)
        try:
            async with asyncio.timeout(within_s):
                if upstream is None:
                    return await self._built_in(asked, entry, version)
                reply = await upstream.forward(asked.body, asked.headers, within_s)
                return _understood(reply.status, reply.body)
        except TimeoutError:
            # Built in, it is the database that is late, for this tenant: the others' answers are at hand.
            late = NothingToSay if upstream is None else HandlerFailed
            raise late(f"no answer within {within_s:g} s") from None

    async def _built_in(self, asked: Asked, entry: Entry, version: Version) -> Template:
        handler = v1.answer if version == "v1" else v2.answer
        return await handler(self._known, entry, asked.house, self._clock())

    async def _found(self, event: Event) -> Found:
        found = self._calls.found(event)
        if found.entry is None:
            try:
                async with asyncio.timeout(LOOK_WITHIN_S):
                    await self._known.look_again()
            except (TimeoutError, RelevoError, psycopg.Error):
                return found
            found = self._calls.found(event)
        return found

    async def _attempt(self, asked: Asked, entry: Entry, version: Version) -> Attempt:
        """Whoever was decided for; else v1, within the same request."""
        fallback = None
        if version == "v2":
            try:
                return Attempt("v2", await self.ask(asked, entry, "v2", V2_WITHIN_S))
            except HandlerFailed as failure:
                fallback = f"v2: {failure}"
                if self._known.v1_retired:
                    return Attempt("v2", None, f"{fallback}; v1 is retired")
        try:
            return Attempt("v1", await self.ask(asked, entry, "v1", V1_WITHIN_S), fallback)
        except HandlerFailed as failure:
            return Attempt("v1", None, fallback or f"v1: {failure}")

    async def _again(self, asked: Asked, pin: Pin, entry: Entry | None) -> tuple[bytes, Pin]:
        """Asked once more about a call that is pinned: by the same tenant and version, or by nobody."""
        whose = entry or self._known.of_tenant(pin.tenant_id)
        if whose is not None and whose.tenant_id != pin.tenant_id:
            self._unplaced.note(asked.event, "the call was another tenant's before")
            whose = None
        answer = None
        if whose is not None and whose.active:
            try:
                answer = await self.ask(asked, whose, pin.served_version, V1_WITHIN_S)
            except HandlerFailed:
                fallback = f"{pin.served_version}: failed when asked again"
                with contextlib.suppress(*UNAVAILABLE):
                    await self._calls.record(asked.event, pin, fallback=fallback)
        return _encoded(answer, asked.house, self._token(pin), whose), pin

    def _token(self, pin: Pin) -> str | None:
        return pins.signed(pin, self._known.keys)


def _understood(status: int, body: bytes) -> dict[str, Any]:
    """An upstream's answer to assistant-request. Raises HandlerFailed for what Vapi could do nothing with."""
    if status != 200:
        raise HandlerFailed(f"it answers {status}")
    try:
        answer = from_json(body)
    except ValueError:
        raise HandlerFailed("its answer is no JSON") from None
    if not isinstance(answer, dict) or not any(answer.get(key) for key in _ANSWERS):
        raise HandlerFailed("its answer holds no assistant")
    return answer


def _encoded(answer: Template | dict[str, Any] | None, house: House, token: str | None, entry: Entry | None) -> bytes:
    if answer is None:
        return apology(entry.human_line if entry else None)
    if isinstance(answer, Template):
        return answer.filled(token)
    return to_json(with_server(answer, house, token))
